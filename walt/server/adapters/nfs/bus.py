"""The D-Bus of one daemon: the server itself is the bus that ganesha connects to.

Ganesha takes orders by D-Bus alone. It asks a bus for little (a name for itself), so
that the server answers as one on a Unix socket of its own: no further daemon that could
fail, and the end of the connection tells the end of ganesha.
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from jeepney import Message, new_error, new_method_return
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from walt.server.runtime.dbus import MessageStream

_BUS = "org.freedesktop.DBus"
_CLIENT = ":1.1"  # the unique name of the only client
LONGEST = 32 << 20  # bytes of a message: what it exports may be 65,534
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED
# What a client may ask the bus, and what it is answered: signature and values.
_ANSWERS: Mapping[str, tuple[str | None, tuple[Any, ...]]] = {
    "Hello": ("s", (_CLIENT,)),
    "RequestName": ("u", (1,)),  # DBUS_REQUEST_NAME_REPLY_PRIMARY_OWNER
    "ReleaseName": ("u", (1,)),  # DBUS_RELEASE_NAME_REPLY_RELEASED
    "AddMatch": (None, ()),
    "RemoveMatch": (None, ()),
}


class BusConnection(MessageStream):
    """The bus's end of the connection of one client, whose methods can be called.

    `clock` gives callLater, `uid` is the only user who may connect; `on_ready` gets the
    connection once the client has a name, `on_lost` when it ends.
    """

    def __init__(
        self, clock: IReactorTime, uid: int, *, on_ready: Callable[[BusConnection], None],
        on_lost: Callable[[BusConnection], None],
    ) -> None:
        super().__init__(clock, "the NFS server", LONGEST)
        self._uid = uid
        self._on_ready, self._on_lost = on_ready, on_lost

    def connectionMade(self) -> None:
        """Refuse other users: the socket is the authentication."""
        assert self.transport is not None
        raw = self.transport.getHandle().getsockopt(  # type: ignore[attr-defined]
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        if _CREDENTIALS.unpack(raw)[1] != self._uid:
            self._refuse("connection of another user")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what was asked, and tell."""
        super().connectionLost(reason)
        self._on_lost(self)

    def _greeted(self, line: bytes) -> bool:
        if line == b"BEGIN":
            return True
        known = line.startswith(b"AUTH EXTERNAL")
        self._write(b"OK %s\r\n" % secrets.token_hex(16).encode() if known else b"ERROR\r\n")
        return False

    def _asked(self, message: Message, member: str) -> None:
        if member in _ANSWERS:
            signature, values = _ANSWERS[member]
            self._send(new_method_return(message, signature, values))
        else:
            self._send(new_error(message, f"{_BUS}.Error.UnknownMethod"))
        if member == "RequestName":
            self._on_ready(self)

    def _told(self, message: Message) -> None:
        """Its signals tell nothing that is of use."""
