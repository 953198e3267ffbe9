"""One question to a daemon by UDP or TCP, for the probes of `watching`.

No question ends by itself: who asks sets a limit and cancels.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.python.failure import Failure

from walt.server.runtime.watching import NoAnswer

T = TypeVar("T")
Address = tuple[str, int]
# Where sockets are opened: a server in a namespace of its own is there already.
Place = Callable[[], AbstractContextManager[None]]

FIRST_AGAIN, LONGEST_AGAIN = 0.25, 4.0  # seconds between repetitions, doubled each time
LONGEST_ANSWER = 65536  # bytes


class _Datagrams(DatagramProtocol, Generic[T]):
    def __init__(
        self, clock: Any, send: Callable[[Any], object],
        accept: Callable[[bytes, Address], T | None], peer: Address | None, farewell: bytes,
    ) -> None:
        self._clock, self._send, self._accept = clock, send, accept
        self._peer, self._farewell = peer, farewell
        self._again = FIRST_AGAIN
        self._timer: IDelayedCall | None = None
        self.answer: Deferred[T] = Deferred()

    def startProtocol(self) -> None:
        assert self.transport is not None
        if self._peer is not None:
            self.transport.connect(*self._peer)
        self._ask()

    def _ask(self) -> None:
        self._timer = self._clock.callLater(self._again, self._ask)
        self._again = min(LONGEST_AGAIN, 2 * self._again)
        try:
            self._send(self.transport)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self._end(error)

    def _end(self, error: Exception) -> None:
        if not self.answer.called:
            self.answer.errback(Failure(error))

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self.answer.called:
            return
        try:
            accepted = self._accept(datagram, addr)
        except NoAnswer as error:
            self._end(error)
            return
        if accepted is None:
            return
        if self._farewell and self.transport is not None:
            with contextlib.suppress(OSError):
                self.transport.write(self._farewell, addr)
        self.answer.callback(accepted)

    def connectionRefused(self) -> None:
        self._end(NoAnswer("nothing listens at its port"))

    def stopProtocol(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


async def ask_datagram(
    reactor: Any, send: Callable[[Any], object],
    accept: Callable[[bytes, Address], T | None], *, own: Address = ("", 0),
    peer: Address | None = None, farewell: bytes = b"",
    place: Place = contextlib.nullcontext,
) -> T:
    """Send a question by UDP, again until `accept` makes something of an answer; return that.

    `accept` returns None for what is no answer, and raises NoAnswer for a wrong one.
    `send` gets the transport; `own` is the local address; with `peer` the socket is
    connected, so that a closed port is noticed. `farewell` goes to the one who
    answered. Raises NoAnswer when the port is closed, OSError when asking is
    impossible here.
    """
    with place(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setblocking(False)
        one.bind(own)
        question = _Datagrams(reactor, send, accept, peer, farewell)
        port = reactor.adoptDatagramPort(one.fileno(), socket.AF_INET, question)
    try:
        return await question.answer
    finally:
        port.stopListening()


class _Stream(Protocol, Generic[T]):
    def __init__(self, send: bytes, accept: Callable[[bytes], T | None], farewell: bytes) -> None:
        self._send, self._accept, self._farewell = send, accept, farewell
        self._received = b""
        self.answer: Deferred[T] = Deferred()

    def connectionMade(self) -> None:
        if self._send and self.transport is not None:
            self.transport.write(self._send)

    def leave(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.answer.called:
            return
        self._received += data
        try:
            accepted = self._accept(self._received)
        except NoAnswer as error:
            self.answer.errback(error)
            return
        if accepted is not None:
            if self._farewell and self.transport is not None:
                self.transport.write(self._farewell)
            self.answer.callback(accepted)
        elif len(self._received) > LONGEST_ANSWER:
            self.answer.errback(NoAnswer("an answer without end"))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if not self.answer.called:
            self.answer.errback(NoAnswer("it closed the connection"))


async def ask_stream(
    reactor: Any, address: str, port: int, accept: Callable[[bytes], T | None], *,
    send: bytes = b"", farewell: bytes = b"", limit: float = 60.0,
    place: Place = contextlib.nullcontext,
) -> T:
    """Connect by TCP, send, and return what `accept` makes of all bytes received so far.

    `accept` returns None as long as it needs more, and raises NoAnswer for an answer
    that is wrong; `farewell` is sent at the end. Raises NoAnswer when the port is
    closed or the daemon closes the connection, OSError when asking is impossible here.
    """
    question: _Stream[T] = _Stream(send, accept, farewell)
    with place():
        connecting = TCP4ClientEndpoint(reactor, address, port, timeout=limit).connect(
            Factory.forProtocol(lambda: question)
        )
    try:
        await connecting
    except ConnectionRefusedError:
        raise NoAnswer("nothing listens at its port") from None
    except ConnectError as error:
        raise OSError(f"connecting to {address}: {error}") from error
    except ConnectingCancelledError:
        raise CancelledError from None
    try:
        return await question.answer
    finally:
        question.leave()
