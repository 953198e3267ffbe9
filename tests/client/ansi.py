"""A terminal for tests: what a stream of bytes leaves on the screen (ECMA-48, xterm)."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder

_SEQUENCE = re.compile(r"\x1b\[([?]?)([0-9;]*)([@-~])")
_BEGUN = re.compile(r"\x1b(?:\[[?]?[0-9;]*)?")


ALTERNATE, CURSOR, WHEEL = 1049, 25, 1007  # private modes


class Window:
    """Rows of characters; any sequence that the pager has no reason to send is an error.

    What is written while the alternate screen is off is not kept.
    """

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.size = rows, columns
        self.modes: set[int] = {CURSOR}
        self.saved: set[int] = set()
        self.looks: set[str] = set()  # every SGR met
        self._look = ""
        self._cells: dict[tuple[int, int], tuple[str, str]] = {}
        self._at = (1, 1)
        self._pending = ""
        self._decoder = getincrementaldecoder("utf-8")()

    def feed(self, data: bytes) -> None:
        """Take bytes, in any parts."""
        text = self._pending + self._decoder.decode(data)
        at = 0
        while at < len(text):
            match = _SEQUENCE.match(text, at)
            if match is not None:
                self._sequence(*match.groups())
                at = match.end()
            elif _BEGUN.fullmatch(text, at):
                break
            elif text[at] in "\r\n":
                row, column = self._at
                self._at = (row, 1) if text[at] == "\r" else (row + 1, column)
                at += 1
            else:
                self._put(text[at])
                at += 1
        self._pending = text[at:]

    def _put(self, char: str) -> None:
        if not char.isprintable():
            raise ValueError(f"a control character: {char!r}")
        if ALTERNATE not in self.modes:
            return
        row, column = self._at
        if row > self.size[0] or column > self.size[1]:
            raise ValueError(f"{char!r} outside of the window, at {self._at}")
        self._cells[self._at] = char, self._look
        self._at = row, column + 1

    def _sequence(self, private: str, parameters: str, final: str) -> None:
        values = [int(one or 0) for one in parameters.split(";")]
        if private:
            change = {
                "h": self.modes.update, "l": self.modes.difference_update,
                "s": lambda modes: self.saved.update(self.modes.intersection(modes)),
                "r": lambda modes: self.modes.difference_update(set(modes) - self.saved),
            }
            change[final](values)
        elif final == "H":
            self._at = (values[0], values[1] if len(values) > 1 else 1)
        elif final == "J" and values == [2]:
            self._cells.clear()
        elif final == "K" and values == [0]:
            row, column = self._at
            for one in range(column, self.size[1] + 1):
                self._cells.pop((row, one), None)
        elif final == "m":
            self._look = "" if values == [0] else parameters
            self.looks.add(self._look)
        else:
            raise ValueError(f"an odd sequence: {private}{parameters}{final}")

    def row(self, number: int) -> str:
        """Return a row, from 1, without the space at its end."""
        return "".join(
            self._cells.get((number, one), (" ", ""))[0] for one in range(1, self.size[1] + 1)
        ).rstrip()

    def text(self) -> str:
        """Return all rows."""
        return "\n".join(self.row(number) for number in range(1, self.size[0] + 1))

    def looking(self, look: str) -> str:
        """Return the characters drawn with one SGR parameter, in their order."""
        return "".join(
            char for _, (char, looks) in sorted(self._cells.items()) if look in looks.split(";")
        )
