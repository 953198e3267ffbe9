"""Lines out of bytes that come in pieces."""

from __future__ import annotations

MAX_LINE = 1 << 20  # bytes; what has no end by then is a line


class Lines:
    """Cut bytes into lines; each has the time at which its first byte came."""

    def __init__(self) -> None:
        self._partial = b""
        self._since = 0.0

    def feed(self, data: bytes, now: float) -> list[tuple[float, bytes]]:
        """Return the lines that are complete, without their ends (`\\n` or `\\r\\n`)."""
        if not self._partial:
            self._since = now
        first, *more = (self._partial + data).split(b"\n")
        found = []
        for line in more:
            found.append((self._since, first.rstrip(b"\r")))
            first, self._since = line, now
        self._partial = first
        if len(first) > MAX_LINE:
            found += self.rest()
        return found

    def rest(self) -> list[tuple[float, bytes]]:
        """Return the line that has no end, if there is one, and start again."""
        partial, self._partial = self._partial.rstrip(b"\r"), b""
        return [(self._since, partial)] if partial else []
