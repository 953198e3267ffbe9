"""What one peer may have of the web port: connections, the body of a request, no log."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress, ITransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.http import Request as HTTPRequest
from twisted.web.server import Request, Site

from walt.common.readers import PATIENCE, end_if_idle

MAX_BODY = 64 * 1024  # bytes; no page takes any


class Counter(Protocol):
    """Counts connections by the address they come from."""

    def admit(self, address: str | None) -> bool:
        """Count one more; False when there are too many."""

    def release(self, address: str | None) -> None:
        """Count one less."""


class BoundedRequest(Request):
    """A request whose body is never written on the disk, nor kept when it is long."""

    content: BytesIO
    channel: Any
    _too_large = False

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        if self._too_large:
            return
        if self.content.tell() + len(data) > MAX_BODY:
            self._refuse()
        else:
            super().handleContentChunk(data)

    def _refuse(self) -> None:
        self._too_large = True
        self.channel.transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.channel.loseConnection()


class QuietSite(Site):
    """A site without an access log: who asks would decide how long it is."""

    def log(self, request: HTTPRequest) -> None:
        """Keep nothing of a request."""


class Counted(ProtocolWrapper):
    """One connection that is counted."""

    def makeConnection(self, transport: ITransport) -> None:
        end_if_idle(transport, self.factory.patience)
        super().makeConnection(transport)


class CountedSite(WrappingFactory):
    """A site that closes at once the connections that are too many.

    Those that take nothing for `patience` seconds of what they asked for are ended: a file is
    kept open for each.
    """

    protocol: type[Counted] = Counted

    def __init__(self, site: Site, counter: Counter, patience: float = PATIENCE) -> None:
        super().__init__(site)
        self._counter = counter
        self.patience = patience

    def buildProtocol(  # type: ignore[override]  # Twisted's own type forgets the refusal
        self, addr: IAddress | None
    ) -> ProtocolWrapper | None:
        if not self._counter.admit(_host(addr)):
            return None
        return super().buildProtocol(addr)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        peer: Any = p.transport
        self._counter.release(_host(peer.getPeer()))


def _host(address: Any) -> str | None:
    return getattr(address, "host", None)
