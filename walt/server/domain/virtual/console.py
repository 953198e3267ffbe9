"""Console output grouped into chunks (spec node-protocols §6.3.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime

CHUNK = 4096
GROUPING = 0.05  # seconds


class Console:
    """Gather the bytes of a serial console and hand them over in chunks."""

    def __init__(self, clock: IReactorTime, chunk: Callable[[bytes], None]) -> None:
        self._clock = clock
        self._chunk = chunk
        self._pending = bytearray()
        self._timer: Any = None

    def received(self, data: bytes) -> None:
        """Add output; it is handed over after 50 ms, or 4,096 bytes."""
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
