"""Where a connection comes from, and on whose behalf."""

from __future__ import annotations

import pwd
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Any, NamedTuple

from twisted.protocols.tls import TLSMemoryBIOProtocol

from walt.common.names import is_user_name
from walt.server.domain.access.enrolment import Access
from walt.server.wire.connections import Kind
from walt.server.wire.policy import Origin

_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid


class Identity(NamedTuple):
    """Who is at the other end.

    `ip` is an IPv4 address; `account` the user that the connection proves:
    the account at the end of a unix socket, which may state another, or the
    user of a certificate, which may not (`bound`). `serial` is that of the
    certificate.
    """

    origin: Origin
    ip: str | None = None
    account: str | None = None
    bound: bool = False
    serial: str | None = None


class Origins(NamedTuple):
    """Classifies the peers of one platform."""

    subnet: IPv4Network
    access: Access

    def of(self, transport: Any) -> Identity:
        """Return who is at the other end of a transport."""
        address = getattr(transport.getPeer(), "host", None)
        if address is None:
            return Identity("unix", account=account_of(transport.getHandle()))
        plain = plain_address(address)
        ip = str(plain) if plain is not None else None
        if isinstance(transport, TLSMemoryBIOProtocol):
            return self._of_certificate(transport.getPeerCertificate(), ip)
        if plain is not None and plain in self.subnet:
            return Identity("walt-net", ip)
        return Identity("elsewhere", ip)

    def _of_certificate(self, certificate: Any, ip: str | None) -> Identity:
        if certificate is None:
            return Identity("encrypted", ip)
        serial = f"{certificate.get_serial_number():x}"
        holder = self.access.holder_of(serial)
        if holder is None:
            return Identity("revoked", ip, serial=serial)
        if holder.kind == "user":
            return Identity("certificate", ip, holder.name, bound=True, serial=serial)
        return Identity("certificate", ip, serial=serial)


def plain_address(text: str) -> IPv4Address | None:
    """Return an IPv4 address, its IPv6-mapped form included; None for IPv6."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped
    return address


def account_of(handle: socket.socket) -> str | None:
    """Return the name of the account at the other end of a unix socket, if it may be a user."""
    raw = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
    return name if is_user_name(name) else None


def kind_of(address: str, subnet: IPv4Network, is_node: Callable[[str], bool]) -> Kind:
    """Return who has an address; `is_node` tells whether an address is that of a known node."""
    plain = plain_address(address)
    if plain is None or plain not in subnet:
        return Kind.ELSEWHERE
    return Kind.NODE if is_node(str(plain)) else Kind.NEIGHBOUR
