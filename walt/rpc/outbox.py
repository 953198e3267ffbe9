"""Boxes on their way to a peer: what is long is written as the peer takes it.

An answer about thousands of nodes is some megabytes. Given to the transport at once they would be
copied twice, and the peer would wait until that is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from twisted.internet.interfaces import IConsumer, IPullProducer
from zope.interface import implementer

AT_ONCE = 1 << 18  # bytes given to the transport in one turn of the reactor


@implementer(IPullProducer)
class Outbox:
    """The boxes of one connection, written to its `transport` in their order.

    Each is a list of bytes, those of a long one in parts that are small against AT_ONCE.
    """

    def __init__(self, transport: IConsumer) -> None:
        self._transport = transport
        self._waiting: deque[bytes | memoryview] = deque()

    def send(self, box: Sequence[bytes | memoryview]) -> None:
        """Write a box, after those before it."""
        if self._waiting:
            self._waiting += box
        elif sum(map(len, box)) <= AT_ONCE:
            self._transport.write(b"".join(box))
        else:
            self._waiting += box
            self._transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """Write some more: the transport has written what it had."""
        self._transport.write(b"".join(self._some()))
        if not self._waiting:
            self._transport.unregisterProducer()

    def _some(self) -> Iterator[bytes | memoryview]:
        size = 0
        while self._waiting and size < AT_ONCE:
            part = self._waiting.popleft()
            size += len(part)
            yield part

    def stopProducing(self) -> None:
        """Write nothing any more: the peer is gone."""
        self._waiting.clear()
