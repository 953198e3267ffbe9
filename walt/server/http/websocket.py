"""WebSockets (RFC 6455) on wsproto: limits, pings, and a place for who uses the messages.

Twisted's own has no limit for a message, no ping, and looks at no Origin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.frame_protocol import FrameProtocol
from wsproto.utilities import generate_accept_token

from walt.rpc.base import abort
from walt.server.runtime.producing import Pace

MAX_MESSAGE = 64 * 1024  # bytes that a browser may send at once, all fragments together
MAX_FRAGMENTS = 64  # of one message: each costs something, even when it is empty
PING_EVERY = 25.0  # seconds; proxies and sleeping machines drop silent connections
PATIENCE = 20.0  # seconds to answer a ping, or to close
TOO_BIG = 1009  # RFC 6455 §7.4.1


def text_message(text: str) -> bytes:
    """Return the bytes that carry a text to a browser: they are the same for all browsers."""
    return bytes(FrameProtocol(client=False, extensions=[]).send_data(text))


def binary_message(data: bytes) -> bytes:
    """Return the bytes that carry data to a browser."""
    return bytes(FrameProtocol(client=False, extensions=[]).send_data(data))


class User:
    """Who uses the messages of one socket. Subclasses override what they need."""

    socket: WebSocket

    def opened(self) -> None:
        """Messages may be sent."""

    def text(self, message: str) -> None:
        """A whole text came."""

    def data(self, message: bytes) -> None:
        """Whole data came."""

    def drained(self) -> None:
        """What was sent has left, after a time when it did not."""

    def lost(self) -> None:
        """The socket is closed."""


class WebSocket(Protocol):
    """One connection, from after its handshake on.

    While the browser does not take what it is sent, nothing of it is read or served: it would be
    answered.
    """

    def __init__(self, user: User, clock: IReactorTime) -> None:
        self._user = user
        user.socket = self
        self._clock = clock
        self._wire = Connection(ConnectionType.SERVER)
        self._parts: list[Any] = []
        self._size = 0
        self._timer: IDelayedCall | None = None
        self._pinged = False
        self._over = False
        self.late = False  # whether the browser does not take what it is sent

    def connectionMade(self) -> None:
        transport: Any = self.transport
        pace = Pace(self._fall_behind, self._catch_up, stop=lambda: None)
        transport.registerProducer(pace, True)
        self._plan(PING_EVERY, self._ping)
        self._user.opened()

    def _plan(self, seconds: float, work: Callable[[], object]) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, work)

    def _fall_behind(self) -> None:
        self.late = True
        transport: Any = self.transport
        transport.pauseProducing()

    def _catch_up(self) -> None:
        self.late = False
        self._serve()
        if not self.late:
            self._user.drained()
        if not self.late and not self._over:
            transport: Any = self.transport
            transport.resumeProducing()

    def _ping(self) -> None:
        self._pinged = True
        self._send(Ping())
        self._plan(PATIENCE, lambda: abort(self.transport))

    def send(self, message: bytes) -> None:
        """Send what `text_message` or `binary_message` made."""
        if self.transport is not None and self._wire.state is ConnectionState.OPEN:
            self.transport.write(message)

    def close(self, code: int, reason: str = "") -> None:
        """Say that it is over (RFC 6455 §7.4), and close."""
        if self._wire.state is ConnectionState.OPEN:
            self._send(CloseConnection(code, reason))
            self._parts.clear()
            self._plan(PATIENCE, lambda: abort(self.transport))

    def _send(self, event: Any) -> None:
        if self.transport is not None:
            self.transport.write(self._wire.send(event))

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._wire.receive_data(data)
        self._serve()

    def _serve(self) -> None:
        """Handle what came; what comes after a moment of lateness waits in the parser."""
        if self.late or self._over:
            return
        for event in self._wire.events():
            self._handle(event)
            if self._over or self.late:
                return

    def _handle(self, event: Any) -> None:
        if isinstance(event, Message):
            self._take(event)
        elif isinstance(event, Ping):
            self._send(event.response())
        elif isinstance(event, Pong):
            if self._pinged:  # others prove nothing
                self._pinged = False
                self._plan(PING_EVERY, self._ping)
        elif isinstance(event, CloseConnection):
            if self._wire.state is ConnectionState.OPEN:  # what came is no frame
                self._end(event.code, event.reason or "")
                return
            if self._wire.state is ConnectionState.REMOTE_CLOSING:
                self._send(event.response())
            self._leave()

    def _take(self, event: Message) -> None:
        if self._wire.state is not ConnectionState.OPEN:
            return
        self._size += len(event.data) if isinstance(event, BytesMessage) else len(
            event.data.encode()
        )
        self._parts.append(event.data)
        if self._size > MAX_MESSAGE or len(self._parts) > MAX_FRAGMENTS:
            self._end(TOO_BIG, "a message has 64 KiB at most")
        elif event.message_finished:
            parts, self._parts, self._size = self._parts, [], 0
            if isinstance(event, TextMessage):
                self._user.text("".join(parts))
            else:
                self._user.data(b"".join(parts))

    def _end(self, code: int, reason: str) -> None:
        """Close, and read nothing more."""
        if self._wire.state is ConnectionState.OPEN:
            self._send(CloseConnection(code, reason))
        self._leave()

    def _leave(self) -> None:
        self._over = True
        transport: Any = self.transport
        transport.unregisterProducer()  # else the end waits for it
        transport.loseConnection()
        self._plan(PATIENCE, lambda: abort(self.transport))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self.transport = None
        self._parts.clear()
        self._user.lost()


def upgrade(request: Any, socket: WebSocket, protocol: str) -> bool:
    """Turn the connection of a request into a WebSocket; False when it asks for none that is known.

    `protocol` is the subprotocol that the answer names (RFC 6455 §4.2.2).
    """
    header = request.getHeader
    token = (header(b"sec-websocket-key") or b"")[:64]
    words = {word.strip().lower() for word in (header(b"connection") or b"").split(b",")}
    if (
        (header(b"upgrade") or b"").lower() != b"websocket" or b"upgrade" not in words
        or header(b"sec-websocket-version") != b"13" or len(token) != 24
        or request.clientproto != b"HTTP/1.1"
    ):
        return False
    channel = request.channel
    transport, channel.transport = channel.transport, None
    channel.setTimeout(None)
    transport.unregisterProducer()  # the channel, which read at the pace of its answers
    transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + generate_accept_token(token) + b"\r\n"
        b"Sec-WebSocket-Protocol: " + protocol.encode() + b"\r\n\r\n"
    )
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = socket
    else:
        transport.protocol = socket
    socket.makeConnection(transport)
    transport.resumeProducing()
    return True
