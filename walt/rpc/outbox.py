"""Boxes on their way to a peer: what is long is written as the peer takes it.

An answer about thousands of nodes is some megabytes. Given to the transport at once they would be
copied twice, and the peer would wait until that is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from twisted.internet.interfaces import IConsumer, IPullProducer
from zope.interface import implementer

AT_ONCE = 1 << 18  # bytes given to the transport in one turn of the reactor


@implementer(IPullProducer)
class Outbox:
    """The boxes of one connection, written to its `transport` in their order.

    Each is a list of bytes, those of a long one in parts that are small against AT_ONCE. `full` is
    told whether there is more than the peer takes at present: whoever does not read what it asked
    for should not be served.
    """

    def __init__(self, transport: IConsumer, full: Callable[[bool], object]) -> None:
        self._transport = transport
        self._full = full
        self._waiting: deque[bytes | memoryview] = deque()
        self._given = 0  # bytes that the transport got since it had written all
        self._asks = False  # whether it asks for more
        self._registering = False

    def send(self, box: Sequence[bytes | memoryview]) -> None:
        """Write a box, after those before it."""
        if self._asks:
            self._waiting += box
            return
        self._given += sum(map(len, box))
        if self._given <= AT_ONCE:
            self._transport.write(b"".join(box))
            return
        self._waiting += box
        self._asks = self._registering = True
        self._full(True)
        self._write_some()  # when this is on its way it asks for more, not before
        self._transport.registerProducer(self, False)
        self._registering = False

    def resumeProducing(self) -> None:
        """Write some more: the transport has written what it had."""
        if self._registering:
            return
        if self._waiting:
            self._write_some()
        elif self._asks:
            self._asks, self._given = False, 0
            self._transport.unregisterProducer()
            self._full(False)

    def _write_some(self) -> None:
        self._transport.write(b"".join(self._some()))

    def _some(self) -> Iterator[bytes | memoryview]:
        size = 0
        while self._waiting and size < AT_ONCE:
            part = self._waiting.popleft()
            size += len(part)
            yield part

    def stopProducing(self) -> None:
        """Write nothing any more: the peer is gone."""
        self._waiting.clear()
        self._asks, self._given = False, 0
