"""A transport in memory, which can be aborted as TCP ones can."""

from __future__ import annotations

from twisted.internet.interfaces import ITCPTransport
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
