"""Where a connection comes from."""

from __future__ import annotations

import os
import pwd
import socket
from ipaddress import IPv4Network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from walt.common.names import is_user_name
from walt.server.wire.peers import Identity, Origins, account_of, plain_address

ORIGINS = Origins(IPv4Network("192.168.1.0/24"), None)  # type: ignore[arg-type]


class TcpPeer:
    """The transport of a TCP connection."""

    def __init__(self, host: str) -> None:
        self._host = host

    def getPeer(self) -> Any:
        if ":" in self._host:
            return IPv6Address("TCP", self._host, 1)
        return IPv4Address("TCP", self._host, 1)


class OriginTests(SynchronousTestCase):
    def test_tcp(self) -> None:
        """Inside walt-net or not; IPv6-mapped addresses are IPv4 ones."""
        for host, expected in (
            ("192.168.1.7", Identity("walt-net", "192.168.1.7")),
            ("::ffff:192.168.1.7", Identity("walt-net", "192.168.1.7")),
            ("192.168.2.7", Identity("elsewhere", "192.168.2.7")),
            ("127.0.0.1", Identity("elsewhere", "127.0.0.1")),
            ("::1", Identity("elsewhere", None)),
        ):
            self.assertEqual(ORIGINS.of(TcpPeer(host)), expected, host)

    def test_unix(self) -> None:
        """The account comes from the credentials of the socket."""
        one, two = socket.socketpair(socket.AF_UNIX)
        self.addCleanup(one.close)
        self.addCleanup(two.close)

        class UnixPeer:
            def getPeer(self) -> Any:
                return UNIXAddress(None)

            def getHandle(self) -> socket.socket:
                return one

        account = pwd.getpwuid(os.getuid()).pw_name
        expected = account if is_user_name(account) else None
        self.assertEqual(ORIGINS.of(UnixPeer()), Identity("unix", account=expected))
        self.assertEqual(account_of(two), expected)

    def test_account_without_name(self) -> None:
        """A uid that has no name, or a name that may not be a user, is nobody."""
        class Handle:
            def getsockopt(self, level: int, option: int, size: int) -> bytes:
                return b"".join(n.to_bytes(4, "little") for n in (1, self.uid, 1))

            uid = 2_000_000_000

        self.assertIsNone(account_of(Handle()))  # type: ignore[arg-type]

    def test_not_an_address(self) -> None:
        """Texts that are no address."""
        self.assertIsNone(plain_address("localhost"))
        self.assertIsNone(plain_address(""))
