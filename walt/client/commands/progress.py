"""What a terminal shows of a transfer."""

from __future__ import annotations

import sys
import time

from walt.client.formats import readable
from walt.client.terminal import WHEEL, both_terminals
from walt.client.visible import own


class Progress:
    """`Transferring…` with a wheel and the size so far; one line at the end."""

    def __init__(self) -> None:
        self._shown = both_terminals()
        self._turn = 0
        self._next = 0.0
        self._size = 0

    def tell(self, text: str) -> None:
        """Print a text of the remote side, or about what was left out."""
        print(text, file=sys.stderr, flush=True)

    def add(self, count: int) -> None:
        """Count bytes."""
        self._size += count
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + 0.1
            self._turn += 1
            self._write(f"\rTransferring... {WHEEL[self._turn % 4]} {readable(self._size)}   ")

    def end(self, ok: bool) -> None:
        """Say how it ended."""
        if self._shown and self._next:
            self._write("\r" + " " * 40 + "\r")
        if ok:
            self._write(f"Transferring... done ({readable(self._size)}).\n")

    @staticmethod
    def _write(text: str) -> None:
        own(text)
        sys.stdout.flush()
