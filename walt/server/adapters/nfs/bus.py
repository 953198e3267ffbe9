"""The D-Bus of one daemon: the server itself is the bus that ganesha connects to.

Ganesha takes orders by D-Bus alone. It asks a bus for little (a name for itself), so
that the server answers as one on a Unix socket of its own: no further daemon that could
fail, and the end of the connection tells the end of ganesha. Messages are jeepney's;
the handshake is that of the D-Bus specification, "Authentication protocol".
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageFlag,
    MessageType,
    new_error,
    new_method_call,
    new_method_return,
)
from jeepney.low_level import Parser
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.errors import CommandFailed, Unavailable
from walt.server.runtime.coroutines import spawn

_log = Logger()

_BUS = "org.freedesktop.DBus"
_CLIENT = ":1.1"  # the unique name of the only client
_LONGEST_HANDSHAKE = 4096  # bytes
_LARGE = 1 << 16  # bytes of a message that is read in a thread: jeepney takes 0.2 ms for a KiB
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED
# What a client may ask the bus, and what it is answered: signature and values.
_ANSWERS: Mapping[str, tuple[str | None, tuple[Any, ...]]] = {
    "Hello": ("s", (_CLIENT,)),
    "RequestName": ("u", (1,)),  # DBUS_REQUEST_NAME_REPLY_PRIMARY_OWNER
    "ReleaseName": ("u", (1,)),  # DBUS_RELEASE_NAME_REPLY_RELEASED
    "AddMatch": (None, ()),
    "RemoveMatch": (None, ()),
}


class Gone(Unavailable):
    """The client ended before it answered."""


class BusConnection(Protocol):
    """The bus's end of the connection of one client, whose methods can be called.

    `clock` gives callLater, `uid` is the only user who may connect; `on_ready` gets the
    connection once the client has a name, `on_lost` when it ends.
    """

    def __init__(
        self, clock: IReactorTime, uid: int, *, on_ready: Callable[[BusConnection], None],
        on_lost: Callable[[BusConnection], None],
    ) -> None:
        self._clock, self._uid = clock, uid
        self._on_ready, self._on_lost = on_ready, on_lost
        self._handshake: bytes | None = b""  # what came of it; None: it is over
        self._parser = Parser()
        self._unread = 0  # bytes of a message that is not whole
        self._serial = 0
        self._calls: dict[int, Deferred[tuple[Any, ...]]] = {}

    def connectionMade(self) -> None:
        """Refuse other users: the socket is the authentication."""
        assert self.transport is not None
        raw = self.transport.getHandle().getsockopt(  # type: ignore[attr-defined]
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        if _CREDENTIALS.unpack(raw)[1] != self._uid:
            self._refuse("connection of another user")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what was asked."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.errback(Gone("it ended before it answered"))
        self._on_lost(self)

    def dataReceived(self, data: bytes) -> None:
        """Take the handshake line by line, then messages."""
        if self._handshake is not None:
            data = self._shake_hands(self._handshake + data)
        self._unread += len(data)
        if self._unread < _LARGE:
            try:
                messages = self._parser.feed(data)
            except Exception as error:  # of many kinds, for bytes that are no message
                self._refuse(f"message that cannot be read ({error})")
                return
            self._take(messages)
        else:
            spawn(self._read_large(data), "reading a message of the NFS server")

    async def _read_large(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.pauseProducing()
        try:
            messages = await deferToThread(self._parser.feed, data)
        except Exception as error:  # as above
            self._refuse(f"message that cannot be read ({error})")
            return
        self._take(messages)
        transport.resumeProducing()

    def _take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._unread = 0
            self._received(message)

    def _shake_hands(self, data: bytes) -> bytes:
        """Answer the lines of the handshake; return what follows it."""
        data = data.lstrip(b"\0")
        while b"\r\n" in data:
            line, data = data.split(b"\r\n", 1)
            if line == b"BEGIN":
                self._handshake = None
                return data
            known = line.startswith(b"AUTH EXTERNAL")
            self._write(b"OK %s\r\n" % secrets.token_hex(16).encode() if known else b"ERROR\r\n")
        if len(data) > _LONGEST_HANDSHAKE:
            self._refuse("endless handshake")
            return b""
        self._handshake = data
        return b""

    def _refuse(self, why: str) -> None:
        _log.warn("D-Bus of the NFS server: {why}: refused", why=why)
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def _send(self, message: Message) -> int:
        self._serial += 1
        self._write(message.serialise(self._serial))
        return self._serial

    def _received(self, message: Message) -> None:
        kind, fields = message.header.message_type, message.header.fields
        if kind is MessageType.method_call:
            self._asked(message, str(fields.get(HeaderFields.member, "")))
        elif kind is not MessageType.signal:
            waiting = self._calls.pop(int(fields.get(HeaderFields.reply_serial, 0)), None)
            if waiting is None:
                return  # given up before
            if kind is MessageType.method_return:
                waiting.callback(message.body)
            else:
                words = " ".join(str(one) for one in message.body)
                name = fields.get(HeaderFields.error_name, "error")
                waiting.errback(CommandFailed(f"the NFS server refused: {name} {words}".strip()))

    def _asked(self, message: Message, member: str) -> None:
        if message.header.flags & MessageFlag.no_reply_expected:
            return
        if member in _ANSWERS:
            signature, values = _ANSWERS[member]
            self._send(new_method_return(message, signature, values))
        else:
            self._send(new_error(message, f"{_BUS}.Error.UnknownMethod"))
        if member == "RequestName":
            self._on_ready(self)

    def call(
        self, address: DBusAddress, member: str, signature: str | None = None,
        values: tuple[Any, ...] = (), *, limit: float,
    ) -> Deferred[tuple[Any, ...]]:
        """Call a method of the client; fires with the values of its answer.

        Fails with CommandFailed (the client's words), Gone, or Unavailable: it did not
        answer within `limit` seconds.
        """
        serial = self._send(new_method_call(address, member, signature, values))
        answer: Deferred[tuple[Any, ...]] = Deferred(lambda _: self._forget(serial))
        self._calls[serial] = answer

        def late(_: object, seconds: float) -> Failure:
            return Failure(Unavailable(f"no answer to {member} within {seconds:g} s"))

        return answer.addTimeout(limit, self._clock, onTimeoutCancel=late)

    def _forget(self, serial: int) -> None:
        self._calls.pop(serial, None)
