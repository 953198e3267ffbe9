"""A transport in memory, which can be aborted as TCP ones can."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from zope.interface import directlyProvides


class TcpTransport(StringTransport):
    """A StringTransport that remembers whether it was aborted."""

    aborted = False

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, ITCPTransport)

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def loseWriteConnection(self) -> None:
        self.disconnecting = True

    def resumeProducing(self) -> None:
        if self.producerState == "paused":
            self.producerState = "producing"


def serve(make: Callable[[], Protocol]) -> Factory:
    """Return a factory whose protocols `make` makes."""
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda addr: make()  # type: ignore[method-assign]
    return factory
