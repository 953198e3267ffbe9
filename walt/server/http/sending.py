"""Files sent from the page cache to sockets, without a copy in this process (sendfile(2))."""

from __future__ import annotations

import os
from typing import Any, ClassVar, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Connection
from twisted.protocols.basic import FileSender
from twisted.protocols.policies import ProtocolWrapper
from twisted.web.http import Request
from twisted.web.iweb import IRequest
from zope.interface import implementer

from walt.server.domain.network_services.interfaces import BootFile

T = TypeVar("T")
# Bytes of all files in one turn of the reactor, and of one of them: each piece costs some calls
# of the system besides its own, and the turn is over when all have had theirs.
TURN, LEAST, MOST = 128 << 20, 256 << 10, 4 << 20


def share(under_way: int) -> int:
    """Return the bytes of one of so many files that are sent in one turn of the reactor."""
    return max(LEAST, min(MOST, TURN // max(1, under_way)))


def send(found: BootFile, request: IRequest) -> Deferred[Any]:
    """Send a file as the body of an answer, at the pace of the requester.

    Its length must have been told. Fires at the end of the file; fails when the requester
    leaves.
    """
    asked = cast("Request", request)
    transport: Any = asked.channel.transport
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    if not isinstance(transport, Connection):
        return FileSender().beginFileTransfer(found.stream, asked)
    return Sending(found, asked, transport).done


@implementer(IPushProducer)
class Sending:
    """One file on its way to the socket of a transport, behind what its buffer has."""

    under_way: ClassVar[int] = 0  # files that are being sent

    def __init__(self, found: BootFile, request: Request, transport: Connection) -> None:
        self._file = found.stream.fileno()
        self._at, self._size = 0, found.size
        self._request, self._transport = request, transport
        self.done: Deferred[None] = Deferred()
        Sending.under_way += 1
        self.done.addBoth(self._over)
        request.registerProducer(self, True)
        request.write(b"")  # the headers
        self._wait()

    @staticmethod
    def _over(result: T) -> T:
        Sending.under_way -= 1
        return result

    def _wait(self) -> None:
        """Go on when the socket takes more, after what the transport has to send."""
        self._transport.producerPaused = True
        self._transport.startWriting()

    def pauseProducing(self) -> None:
        """Nothing is to be done: nothing is sent but when the buffer is empty."""

    def resumeProducing(self) -> None:
        """Send what the socket takes now."""
        if self.done.called:
            return
        last = min(self._size, self._at + share(Sending.under_way))
        try:
            while self._at < last:
                sent = os.sendfile(
                    self._transport.fileno(), self._file, self._at, last - self._at
                )
                if not sent:  # the file became shorter: the requester must not take it for whole
                    self._transport.abortConnection()
                    return
                self._at += sent
        except BlockingIOError:
            pass
        except OSError:
            self._transport.abortConnection()
            return
        if self._at < self._size:
            self._wait()
            return
        self._request.unregisterProducer()
        self.done.callback(None)

    def stopProducing(self) -> None:
        """The requester has left."""
        if not self.done.called:
            self.done.errback(ConnectionLost("the requester left"))
