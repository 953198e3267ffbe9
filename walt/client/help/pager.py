"""The pager without its terminal: what each key does, and what is to be seen."""

from __future__ import annotations

from typing import Callable, Collection, List, NamedTuple

from walt.client.help.parse import parse
from walt.client.help.render import (
    REVERSE,
    UNICODE,
    Page,
    Piece,
    Signs,
    render,
)

MIN_ROWS, MIN_COLUMNS = 6, 40
MARGIN = 1  # columns left free at each side
ENLARGE = f"Please enlarge this window to {MIN_COLUMNS} columns and {MIN_ROWS} rows."
KEYS = "Tab Enter: links  Backspace: back  q: quit"

Frame = List[List[Piece]]


class _Place(NamedTuple):
    """Where the reader was."""

    topic: str
    block: int
    offset: int  # lines after the start of that block
    selected: int


class Pager:
    """Shows one topic at a time; `selected` is the place of a link in the page's, or -1."""

    def __init__(
        self, topic: str, topics: Collection[str], read: Callable[[str], str],
        signs: Signs = UNICODE,
    ) -> None:
        """`topics` are the topics there are, `read` gives the Markdown of one."""
        self._topics, self._read, self._signs = topics, read, signs
        self._rows, self._columns = 24, 80
        self._came_from: list[_Place] = []
        self._open(topic)

    def _open(self, topic: str) -> None:
        self.topic = topic
        self._blocks = parse(self._read(topic), set(self._topics) - {topic})
        self._top, self._selected = 0, -1
        self._lay_out()

    def _lay_out(self) -> None:
        width = max(self._columns, MIN_COLUMNS) - 2 * MARGIN
        self._page: Page = render(self._blocks, width, self._signs)

    @property
    def _height(self) -> int:
        return max(1, self._rows - 1)

    def resize(self, rows: int, columns: int) -> None:
        """Take the size of the window; what is at its top stays there."""
        if (rows, columns) == (self._rows, self._columns):
            return
        place = self._place()
        self._rows, self._columns = rows, columns
        self._lay_out()
        self._go(place)

    def _place(self) -> _Place:
        starts = self._page.starts
        block = max((one for one, line in enumerate(starts) if line <= self._top), default=0)
        offset = self._top - starts[block] if starts else 0
        return _Place(self.topic, block, offset, self._selected)

    def _go(self, place: _Place) -> None:
        starts = [*self._page.starts, len(self._page.lines)]
        first = starts[place.block]
        after = starts[min(place.block + 1, len(starts) - 1)]
        self._selected = place.selected if place.selected < len(self._page.links) else -1
        self._scroll(min(first + place.offset, max(first, after - 1)))

    def _scroll(self, top: int) -> None:
        last = max(0, len(self._page.lines) - self._height)
        self._top = min(max(0, top), last)
        if self._selected >= 0 and not self._sees(self._page.links[self._selected].line):
            self._selected = -1

    def _sees(self, line: int) -> bool:
        return self._top <= line < self._top + self._height

    def key(self, name: str) -> bool:
        """Do what a key asks for; return False when it is to quit.

        Raises KeyboardInterrupt for ctrl-C.
        """
        if name == "interrupt":
            raise KeyboardInterrupt
        if name == "quit":
            return False
        moves = {
            "up": -1, "down": 1, "page-up": 1 - self._height, "page-down": self._height - 1,
            "home": -len(self._page.lines), "end": len(self._page.lines),
        }
        if name in moves:
            self._scroll(self._top + moves[name])
        elif name == "next-link":
            self._select(1)
        elif name == "previous-link":
            self._select(-1)
        elif name == "open" and self._selected >= 0:
            self._came_from.append(self._place())
            self._open(self._page.links[self._selected].topic)
        elif name == "back" and self._came_from:
            place = self._came_from.pop()
            self._open(place.topic)
            self._go(place)
        return True

    def _select(self, step: int) -> None:
        links = self._page.links
        if not links:
            return
        if self._selected >= 0:
            chosen = (self._selected + step) % len(links)
        else:  # the nearest one, from what is seen
            after = sum(link.line < self._top for link in links)
            if step < 0:
                after = sum(link.line < self._top + self._height for link in links) - 1
            chosen = after % len(links)
        line = links[chosen].line
        self._selected = chosen
        if line < self._top:
            self._scroll(line)
        elif not self._sees(line):
            self._scroll(line - self._height + 1)

    def frame(self) -> Frame:
        """Return the rows of the window, each no wider than it."""
        if self._rows < MIN_ROWS or self._columns < MIN_COLUMNS:
            asked = render(parse(ENLARGE, ()), self._columns, self._signs)
            return [list(line) for line in asked.lines[:self._rows]]
        number = self._page.links[self._selected].number if self._selected >= 0 else None
        seen = self._page.lines[self._top:self._top + self._height]
        frame: Frame = [
            [Piece(MARGIN * " "), *(
                piece._replace(style=piece.style | REVERSE) if piece.link == number else piece
                for piece in line
            )] for line in seen
        ]
        frame += [[] for _ in range(self._height - len(seen))]
        return [*frame, self._status()]

    def _status(self) -> list[Piece]:
        last = min(self._top + self._height, len(self._page.lines))
        left, right = f" {self.topic}", f"{last}/{len(self._page.lines)} "
        if len(left) + len(KEYS) + len(right) + 4 <= self._columns:
            right = f"{KEYS}  {right}"
        left = left[:self._columns - len(right) - 1]
        return [Piece(left.ljust(self._columns - len(right)) + right, REVERSE)]
