"""What terminals would obey is shown: the one place through which all texts pass to them.

Lines of logs, names and messages come from nodes, images, registries and switches. An
escape sequence or a carriage return in them could forge lines, change the title, or fill
the clipboard of whoever reads them. Output that is no terminal stays as it is. Consoles and
shells have their own way: there, the far side owns the screen.
"""

from __future__ import annotations

import sys

from walt.common.controls import visible

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO


class Visible:
    """A text stream to a terminal; `own` writes what this program itself draws."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text that others may have made."""
        self._stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts, one after the other."""
        for line in lines:
            self.write(line)

    def own(self, text: str) -> None:
        """Write a text as it is: colours and moves of the cursor count."""
        self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def own(text: str, stream: Any = None) -> None:
    """Write what this program draws itself, with `visible` for what others made in it."""
    stream = stream or sys.stdout
    getattr(stream, "own", stream.write)(text)


def protect_terminals() -> None:
    """Let the standard streams that are terminals show what they would obey."""
    if sys.stdout.isatty():
        sys.stdout = Visible(sys.stdout)
    if sys.stderr.isatty():
        sys.stderr = Visible(sys.stderr)
