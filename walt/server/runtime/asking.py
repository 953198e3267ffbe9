"""One question to a daemon by UDP or TCP, for the probes of `watching`.

No question ends by itself: who asks sets a limit and cancels.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import (
    IDelayedCall,
    IReadDescriptor,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import NoAnswer

T = TypeVar("T")
Address = tuple[str, int]
# Where sockets are opened: a server in a namespace of its own is there already.
Place = Callable[[], AbstractContextManager[object]]

FIRST_AGAIN, LONGEST_AGAIN = 0.25, 4.0  # seconds between repetitions, doubled each time
PASSING = (errno.EAGAIN, errno.EINTR, errno.ENOBUFS)
LONGEST_ANSWER = 65536  # bytes


@implementer(IReadDescriptor)
class _Datagrams(Generic[T]):
    # A UDP port of Twisted would log two lines for each question.

    def __init__(
        self, reactor: IReactor, endpoint: socket.socket, send: Callable[[socket.socket], object],
        accept: Callable[[bytes, Address], T | None], farewell: bytes = b"", *,
        once: bool = False,
    ) -> None:
        self._reactor, self._socket = reactor, endpoint
        self._send, self._accept, self._farewell = send, accept, farewell
        self._once = once  # a question that was taken is not repeated
        self._again = FIRST_AGAIN
        self._timer: IDelayedCall | None = None
        self.answer: Deferred[T] = Deferred()

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return a name for logs."""
        return "asking"

    def connectionLost(self, reason: Failure) -> None:
        """Nothing to do: who asks closes the socket."""

    def start(self) -> None:
        """Ask, and begin to read."""
        self._reactor.addReader(self)
        self._ask()

    def stop(self) -> None:
        """Neither ask nor read any more."""
        self._reactor.removeReader(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _ask(self) -> None:
        self._timer = self._reactor.callLater(self._again, self._ask)
        self._again = min(LONGEST_AGAIN, 2 * self._again)
        try:
            self._send(self._socket)
        except OSError as error:
            self._trouble(error)
        else:
            if self._once:
                self._timer.cancel()

    def _trouble(self, error: OSError) -> None:
        if error.errno == errno.ECONNREFUSED:
            self._end(NoAnswer("nothing listens at its port"))
        elif error.errno not in PASSING:
            self._end(error)

    def _end(self, error: Exception) -> None:
        if not self.answer.called:
            self.answer.errback(Failure(error))

    def doRead(self) -> None:
        """Take one datagram."""
        try:
            datagram, sender = self._socket.recvfrom(LONGEST_ANSWER)
        except OSError as error:
            self._trouble(error)
            return
        if self.answer.called:
            return
        try:
            accepted = self._accept(datagram, sender)
        except NoAnswer as problem:
            self._end(problem)
            return
        if accepted is None:
            return
        if self._farewell:
            with contextlib.suppress(OSError):
                self._socket.sendto(self._farewell, sender)
        self.answer.callback(accepted)


async def ask_datagram(
    reactor: IReactor, send: Callable[[socket.socket], object],
    accept: Callable[[bytes, Address], T | None], *, own: Address = ("", 0),
    peer: Address | None = None, farewell: bytes = b"",
    place: Place = contextlib.nullcontext,
) -> T:
    """Send a question by UDP, again until `accept` makes something of an answer; return that.

    `accept` gets a datagram and its sender, returns None for what is no answer, and
    raises NoAnswer for a wrong one. `send` gets the socket; `own` is the local
    address; with `peer` the socket is connected, so that a closed port is noticed.
    `farewell` goes to the one who answered.
    Raises NoAnswer when the port is closed, OSError when asking is impossible here.
    """
    with place():
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with endpoint:
        endpoint.setblocking(False)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        endpoint.bind(own)
        if peer is not None:
            endpoint.connect(peer)
        question = _Datagrams(reactor, endpoint, send, accept, farewell)
        question.start()
        try:
            return await question.answer
        finally:
            question.stop()


async def ask_unix_datagram(
    reactor: IReactor, path: Path, own: Path, question: bytes, accept: Callable[[bytes], T | None],
) -> T:
    """Send a question to the unix socket `path`, once, and return what `accept` makes of an answer.

    `own` is where the answer comes, a place that is free for us; nobody else than the one asked is
    heard there. `accept` is as that of `ask_stream`, and gets one datagram.
    Raises NoAnswer when nothing listens there, OSError when asking is impossible here.
    """
    own.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as endpoint:
        endpoint.setblocking(False)
        endpoint.bind(str(own))
        try:
            try:
                endpoint.connect(str(path))
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                    raise NoAnswer("nothing listens at its socket") from None
                raise
            asked = _Datagrams(
                reactor, endpoint, lambda sending: sending.send(question),
                lambda datagram, _: accept(datagram), once=True,
            )
            asked.start()
            try:
                return await asked.answer
            finally:
                asked.stop()
        finally:
            own.unlink(missing_ok=True)


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
    endpoint: IStreamClientEndpoint, accept: Callable[[bytes], T | None], *,
    send: bytes = b"", farewell: bytes = b"", place: Place = contextlib.nullcontext,
) -> T:
    """Connect, send, and return what `accept` makes of all bytes received so far.

    `accept` returns None as long as it needs more, and raises NoAnswer for an answer
    that is wrong; `farewell` is sent at the end. Raises NoAnswer when the port is
    closed or the daemon closes the connection, OSError when asking is impossible here.
    """
    question: _Stream[T] = _Stream(send, accept, farewell)
    factory = Factory.forProtocol(lambda: question)
    factory.noisy = False
    with place():
        connecting = endpoint.connect(factory)
    try:
        await connecting
    except ConnectionRefusedError:
        raise NoAnswer("nothing listens at its port") from None
    except ConnectError as error:
        if error.osError == errno.ENOENT:  # a unix socket
            raise NoAnswer("it has not made its socket") from None
        raise OSError(f"connecting: {error}") from error
    except ConnectingCancelledError:
        raise CancelledError from None
    try:
        return await question.answer
    finally:
        question.leave()
