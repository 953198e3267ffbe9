"""One-line requests to nodes, on TCP 12346 (spec node-protocols §5.1, N-087)."""

from __future__ import annotations

import os

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common.ports import NODE_SERVICE
from walt.server.domain.nodes.interfaces import INodeLink

PATIENCE = 15.0  # seconds to connect, and again to answer
MAX_REPLY = 65536

IMPROPER = "Node did not respond properly"


class _Reply(Protocol):
    """Sends one request and keeps the first line of the answer."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._data = b""
        self.first: Deferred[str] = Deferred(lambda _: self._drop())

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(f"MODE single\n{self._line}\n".encode())

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        line, newline, _ = self._data.partition(b"\n")
        if newline or len(line) > MAX_REPLY:
            self._finish(line.decode(errors="replace"))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if not self.first.called:
            if reason.check(error.ConnectionDone):
                self._finish(self._data.decode(errors="replace"))
            else:
                self.first.errback(reason)

    def _finish(self, line: str) -> None:
        if not self.first.called:
            self.first.callback(line)
        self._drop()

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def reason_of(failure: BaseException) -> str:
    """Return the text shown for a connection that failed."""
    if isinstance(failure, (error.TimeoutError, error.TCPTimedOutError)):
        return "Connection timed out"
    if isinstance(failure, TimeoutError):
        return "Timed out waiting for reply"
    if isinstance(failure, error.ConnectionRefusedError):
        return "Connection refused"
    if isinstance(failure, (error.ConnectionLost, error.ConnectionAborted)):
        return "Broken connection"
    if isinstance(failure, error.ConnectError) and isinstance(failure.osError, int):
        return os.strerror(failure.osError)
    return str(failure) or "Broken connection"


def parse_reply(line: str) -> str | None:
    """Return None for an OK line, else the reason it gives."""
    word, _, rest = line.strip().partition(" ")
    if word == "OK":
        return None
    return rest.strip() or IMPROPER


@implementer(INodeLink)
class NodeLink:
    """Talks to nodes from the server's address."""

    def __init__(self, reactor: IReactorTime, port: int = NODE_SERVICE) -> None:
        self._reactor = reactor
        self._port = port

    async def request(self, ip: str, line: str) -> str | None:
        """Send one request line; return None for OK, else the reason of the failure.

        Who gives it up gets no reason, but a CancelledError.
        """
        protocol = _Reply(line)
        endpoint = TCP4ClientEndpoint(self._reactor, ip, self._port, timeout=int(PATIENCE))
        try:
            await endpoint.connect(Factory.forProtocol(lambda: protocol))
        except (CancelledError, error.ConnectingCancelledError):
            raise CancelledError from None
        except Exception as failure:
            return reason_of(failure)
        try:
            return parse_reply(await protocol.first.addTimeout(PATIENCE, self._reactor))
        except CancelledError:
            raise
        except Exception as failure:
            return reason_of(failure)
