"""Kernel messages of nodes over UDP (spec node-protocols §6.3.3)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.server.streams.platform import NODE, Platform
from walt.server.streams.netconsole import MAX_PARTIAL, Netconsole


class NetconsoleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()
        self.netconsole = Netconsole(self.platform.registry, self.platform.logs)

    def receive(self, data: bytes, ip: str | None = NODE.ip) -> None:
        self.netconsole.datagramReceived(data, (str(ip), 6666))

    def test_lines_are_assembled(self) -> None:
        """A line may come in several datagrams, a datagram may hold several lines."""
        self.receive(b"[ 0.1] boo")
        self.assertEqual(self.platform.lines("netconsole"), [])
        self.receive(b"t\n[ 0.2] b\xffd\n[ 0.3]")
        self.assertEqual(self.platform.lines("netconsole"), ["[ 0.1] boot", "[ 0.2] b\\xffd"])

    def test_unknown_source(self) -> None:
        """Datagrams of unknown addresses are dropped, and do not mix with those of nodes."""
        self.receive(b"one", "192.168.1.99")
        self.receive(b"two\n")
        self.assertEqual(self.platform.lines("netconsole"), ["two"])

    def test_line_without_end(self) -> None:
        """What never ends is logged at the bound, not kept."""
        for _ in range(MAX_PARTIAL // 8000 + 1):
            self.receive(b"x" * 8000)
        self.assertEqual(len(self.platform.lines("netconsole")), 1)
