"""Console output: grouped into chunks (spec node-protocols §6.3.4), and the end of it, kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime

CHUNK = 4096
GROUPING = 0.05  # seconds
KEPT = 64 * 1024  # bytes of output that whoever comes later still sees

Watcher = Callable[[bytes], object]


class Console:
    """Gather the bytes of a serial console and hand them over in chunks.

    Those who watch get the bytes as they come.
    """

    def __init__(self, clock: IReactorTime, chunk: Callable[[bytes], None]) -> None:
        self._clock = clock
        self._chunk = chunk
        self._pending = bytearray()
        self._timer: Any = None
        self._kept = bytearray()
        self._watchers: list[Watcher] = []

    def watch(self, watcher: Watcher) -> bytes:
        """Call `watcher` with what is output from now on; return what was, 64 KiB at most."""
        self._watchers.append(watcher)
        return bytes(self._kept)

    def unwatch(self, watcher: Watcher) -> None:
        """Call it no more."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def received(self, data: bytes) -> None:
        """Add output; it is handed over after 50 ms, or 4,096 bytes."""
        self._kept += data
        del self._kept[:-KEPT]
        for watcher in list(self._watchers):
            watcher(data)
        self._pending += data
        while len(self._pending) >= CHUNK:
            self._chunk(bytes(self._pending[:CHUNK]))
            del self._pending[:CHUNK]
        if self._pending and self._timer is None:
            self._timer = self._clock.callLater(GROUPING, self.flush)

    def flush(self) -> None:
        """Hand over what is pending."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._pending:
            self._chunk(bytes(self._pending))
            self._pending.clear()
