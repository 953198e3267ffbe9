"""Boxes that arrived and wait to be served, for some time in each turn of the reactor.

One read may bring a hundred calls. Served all at once they keep everybody else waiting: after
SLICE the rest of them waits for the next turn, and the peer is not read meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp

from walt.common import ampbox

SLICE = 0.01  # seconds of one turn


class Intake:
    """The boxes of one connection, served in their order.

    `serve` gets each of them; `read` is told when the peer may be read, and when not; `broken`
    gets the error that ends it all: bytes that are no box, a box above `limit` bytes, one
    that `serve` refuses, or whatever else it raises. `clock` gives seconds and callLater; without
    one nothing waits.
    """

    def __init__(
        self, serve: Callable[[ampbox.Box], object], read: Callable[[bool], object],
        broken: Callable[[Exception], object], limit: int, clock: IReactorTime | None,
    ) -> None:
        self._serve, self._read, self._broken = serve, read, broken
        self._clock = clock
        self._decoder = ampbox.Decoder(limit)
        self._data: list[bytes] = []
        self._boxes: Iterator[ampbox.Box] | None = None  # those that wait, if any do
        self._holds = 0
        self._serving = self._ended = False
        self._reading = True
        self._next: Any = None  # the call of the next slice

    def feed(self, data: bytes) -> None:
        """Take bytes that were received."""
        if self._ended:
            return
        self._data.append(data)
        if self._boxes is None:
            self._boxes = self._arrived()
            self._serve_some()

    def hold(self) -> None:
        """Serve nothing more, and read nothing, until each `hold` had its `release`."""
        self._holds += 1
        self._follow()

    def release(self) -> None:
        """Go on after `hold`."""
        self._holds -= 1
        self._follow()

    def end(self) -> None:
        """Serve nothing any more: the peer is gone."""
        self._ended = True
        self._data.clear()
        self._boxes = None
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _arrived(self) -> Iterator[ampbox.Box]:
        while self._data:
            yield from self._decoder.feed(self._data.pop(0))

    def _serve_some(self) -> None:
        self._next, self._serving = None, True
        try:
            self._serve_slice()
        except (ampbox.BadBox, amp.NoEmptyBoxes) as error:
            self.end()
            self._broken(error)
        except Exception as error:
            # A turn of the reactor logs it and goes on; nothing else would end the connection.
            self.end()
            self._broken(error)
            raise
        finally:
            self._serving = False
        self._follow()

    def _serve_slice(self) -> None:
        clock = self._clock
        start = clock.seconds() if clock is not None else 0.0
        while self._boxes is not None and not self._holds:
            box = next(self._boxes, None)
            if box is None:
                self._boxes = None
                return
            self._serve(box)
            if clock is not None and clock.seconds() - start >= SLICE:
                return

    def _follow(self) -> None:
        """Plan the next slice, and read or not, as things are now."""
        if self._serving or self._ended:
            return
        if self._boxes is not None and not self._holds and self._next is None:
            if self._clock is None:
                self._serve_some()
                return
            self._next = self._clock.callLater(0, self._serve_some)
        reading = self._boxes is None and not self._holds
        if reading != self._reading:
            self._reading = reading
            self._read(reading)
