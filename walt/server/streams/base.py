"""The stream port: a request line, then the protocol of that request.

Requests used by nodes are byte-compatible with spec node-protocols §6;
client requests are framed (`walt.common.frames`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from walt.common import frames
from walt.common.errors import (
    Denied,
    InternalError,
    Invalid,
    WaltError,
    disk_refuses,
    not_yours,
)
from walt.common.names import is_user_name
from walt.common.texts import load_json
from walt.rpc.base import abort
from walt.server.domain.requester import acting
from walt.server.domain.shares import Shares

_log = Logger()

MAX_REQUEST_LINE = 128
HEADER_PATIENCE = 30.0  # seconds to say what one wants
LINGER = 10.0  # seconds to take the result and close


class Peer(NamedTuple):
    """Who is at the other end: an address of walt-net (or None), and what it may ask.

    `trusted` peers may make client requests; `account` is the user that the
    connection proves; with `bound` the peer may not state another. `shares`
    limits the client requests of a user. `serial` is that of the certificate, if there is one.
    """

    ip: str | None
    trusted: bool
    account: str | None = None
    bound: bool = False
    shares: Shares | None = None
    serial: str | None = None


class Request:
    """One request in progress. Subclasses override `received` and `lost`."""

    client_only = False

    def __init__(self, connection: StreamProtocol, peer: Peer) -> None:
        self.connection = connection
        self.peer = peer

    def started(self) -> None:
        """The request line was read."""

    def received(self, data: bytes) -> None:
        """Bytes after the request line."""

    def lost(self) -> None:
        """The peer is gone."""


RequestClass = Callable[["StreamProtocol", Peer], Request]


class StreamProtocol(Protocol):
    """Reads the request line, then hands the connection over."""

    def __init__(
        self, requests: Mapping[str, RequestClass], peer: Peer, clock: IReactorTime
    ) -> None:
        self._requests = requests
        self._peer = peer
        self._clock = clock
        self._head = b""
        self._request: Request | None = None
        self._timer: Any = None
        self._finishing = False
        self._at_end: list[Callable[[], object]] = []

    def at_end(self, action: Callable[[], object]) -> None:
        """Call `action`, too, when the connection is lost."""
        self._at_end.append(action)

    def connectionMade(self) -> None:
        self._timer = self._clock.callLater(HEADER_PATIENCE, self.abort)

    def header_complete(self) -> None:
        """The peer said all that it wants: it may be silent from now on."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def dataReceived(self, data: bytes) -> None:
        if self._finishing:
            return
        if self._request is not None:
            self._request.received(data)
            return
        self._head += data
        line, newline, rest = self._head.partition(b"\n")
        if len(line) > MAX_REQUEST_LINE:
            self.abort()
        elif newline:
            self._start(line.decode(errors="replace").strip(), rest)

    def _start(self, name: str, rest: bytes) -> None:
        factory = self._requests.get(name)
        if factory is None:
            _log.debug("unknown stream request {name} from {peer}", name=name, peer=self._peer)
            self.close()
            return
        self._request = factory(self, self._peer)
        self._request.started()
        if rest:
            self._request.received(rest)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        """Close when everything written has left."""
        if self.transport is not None:
            self.transport.loseConnection()

    def finish(self) -> None:
        """Close, once the peer has read everything: what it still sends is ignored.

        A socket closed with unread input is reset, and its last bytes are lost.
        """
        transport: Any = self.transport
        if transport is None or self._finishing:
            return
        self._finishing = True
        if isinstance(transport, TLSMemoryBIOProtocol):
            transport.loseConnection()  # waits for the peer's own closing alert
        else:
            transport.loseWriteConnection()
        transport.resumeProducing()
        self.header_complete()
        self._timer = self._clock.callLater(LINGER, self.abort)

    def abort(self) -> None:
        """Close at once."""
        abort(self.transport)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._finishing = True
        self.header_complete()
        request, self._request = self._request, None
        if request is not None:
            request.lost()
        at_end, self._at_end = self._at_end, []
        for action in at_end:
            action()


def _parse_parameters(line: bytes) -> dict[str, Any]:
    try:
        parameters = load_json(line)
    except ValueError:
        parameters = None
    if not isinstance(parameters, dict):
        raise Invalid("the parameters of a stream request are one JSON object on one line")
    return parameters


class FramedRequest(Request):
    """A client request: one JSON line of parameters, then frames both ways."""

    def __init__(self, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(connection, peer)
        self._head = b""
        self._decoder: frames.Decoder | None = None
        self.username = peer.account or ""

    def started(self) -> None:
        if not self.peer.trusted:
            self.fail(Denied("clients of other machines need a certificate of this platform"))

    def received(self, data: bytes) -> None:
        if not self.peer.trusted:
            return
        if self._decoder is None:
            self._head += data
            line, newline, data = self._head.partition(b"\n")
            if len(line) > frames.MAX_PARAMETERS:
                self.connection.abort()
                return
            if not newline:
                return
            self._decoder = frames.Decoder()
            self.connection.header_complete()
            self._open(line)
        try:
            for kind, payload in self._decoder.feed(data):
                self._on_behalf(self.frame, kind, payload)
        except frames.BadFrame:
            self.connection.abort()

    def _on_behalf(self, work: Callable[..., None], *words: Any) -> None:
        """Do something in a context that tells whose it is."""
        before = acting.set(self.username)
        try:
            work(*words)
        finally:
            acting.reset(before)

    def _open(self, line: bytes) -> None:
        try:
            parameters = _parse_parameters(line)
            user = parameters.pop("username", None) or self.username
            if not isinstance(user, str) or not is_user_name(user):
                raise Invalid("state a valid user name in the parameters")
            if self.peer.bound and user != self.peer.account:
                raise not_yours(self.peer.account, user)
            self.username = user
            self._enter()
            self._on_behalf(self.opened, parameters)
        except WaltError as error:
            self.fail(error)
        except Exception as error:
            self.fail_unexpected(error)

    def fail_unexpected(self, error: BaseException) -> None:
        """End with an error that nobody declared: a full disk of the server, or a bug."""
        full = disk_refuses(error)
        if full is not None:
            _log.error("a stream request: {text}", text=str(full))
            self.fail(full)
            return
        _log.failure("stream request failed", Failure(error))
        self.fail(InternalError("internal error; see the log of the server"))

    def _enter(self) -> None:
        if self.peer.shares is not None:
            self.peer.shares.enter(self.username)
            self.connection.at_end(partial(self.peer.shares.leave, self.username))

    def opened(self, parameters: dict[str, Any]) -> None:
        """The parameters are there. A WaltError raised is sent to the client."""

    def frame(self, kind: bytes, payload: bytes) -> None:
        """One frame of the client."""

    def data(self, payload: bytes) -> None:
        """Send bytes of the session."""
        self.connection.write(frames.encode(frames.DATA, payload))

    def message(self, text: str) -> None:
        """Send a text for the client's standard error."""
        self.connection.write(frames.encode(frames.MESSAGE, text.encode()))

    def result(self, **values: Any) -> None:
        """Send the result and close."""
        self.connection.write(frames.encode(frames.RESULT, json.dumps(values).encode()))
        self.connection.finish()

    def fail(self, error: WaltError) -> None:
        """Send an error as the result and close."""
        self.result(status=error.exit_status, error=str(error), code=error.code)
