"""Where a connection comes from, and on whose behalf."""

from __future__ import annotations

import pwd
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Any

from walt.common.names import is_user_name
from walt.server.wire.policy import Origin

_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid


@dataclass(frozen=True)
class Origins:
    """Classifies the peers of one platform."""

    subnet: IPv4Network

    def of(self, transport: Any) -> tuple[Origin, str | None, str | None]:
        """Return (origin, address or None, account or None) of a transport."""
        handle = transport.getHandle()
        if handle.family == socket.AF_UNIX:
            return "unix", None, account_of(handle)
        ip = plain_address(transport.getPeer().host)
        if ip is not None and ip in self.subnet:
            return "walt-net", str(ip), None
        return "elsewhere", str(ip) if ip is not None else None, None


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
