"""The pager without its terminal: what each key does, and what is to be seen."""

from __future__ import annotations

from typing import Callable, Collection, Iterable, Iterator, List, NamedTuple

from walt.client.help.keys import TYPED
from walt.client.help.parse import parse
from walt.client.help.render import (
    REVERSE,
    UNICODE,
    Page,
    Piece,
    Signs,
    render,
)
from walt.client.help.text import cells

MIN_ROWS, MIN_COLUMNS = 6, 40
MARGIN = 1  # columns left free at each side
ENLARGE = f"Please enlarge this window to {MIN_COLUMNS} columns and {MIN_ROWS} rows."
KEYS = (  # the first that has the room
    "Tab Enter: links  Backspace: back  /: search  q: quit", "/: search  q: quit",
)
MAX_SOUGHT = 200  # characters of a text to look for

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
        self._typed: str | None = None  # the text to look for, while it is being typed
        self._sought = ""
        self._match = -1  # the line found last
        self._told = ""  # at the bottom, until the next key
        self._open(topic)

    def _open(self, topic: str) -> None:
        self.topic = topic
        self._blocks = parse(self._read(topic), set(self._topics) - {topic})
        self._top, self._selected = 0, -1
        self._match = -1
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
        self._match = -1
        self._rows, self._columns = rows, columns
        self._lay_out()
        self._go(place)

    def _place(self) -> _Place:
        starts = self._page.starts
        block = max((index for index, line in enumerate(starts) if line <= self._top), default=0)
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
        self._told = ""
        if self._typed is not None:
            self._type(name)
            return True
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
        elif name == "search":
            self._typed = ""
        elif name == "next-match":
            self._find(1)
        elif name == "previous-match":
            self._find(-1)
        return True

    @property
    def typing(self) -> bool:
        """Whether a text to look for is being typed."""
        return self._typed is not None

    def _type(self, name: str) -> None:
        typed = self._typed or ""
        if name.startswith(TYPED):
            self._typed = (typed + name[len(TYPED):])[:MAX_SOUGHT]
        elif name == "back":
            self._typed = typed[:-1] if typed else None
        elif name == "open":
            self._typed = None
            self._sought = typed or self._sought
            self._find(1, itself=True)

    def _find(self, step: int, itself: bool = False) -> None:
        """Scroll to the next line that has the text, round the ends of the page."""
        if not self._sought:
            return
        lines = self._page.lines
        start = self._match if self._match >= 0 and self._sees(self._match) else self._top
        first = 0 if itself or start != self._match else step
        for distance in range(first, first + step * len(lines), step):
            at = (start + distance) % len(lines)
            if self._sought.lower() in "".join(piece.text for piece in lines[at]).lower():
                self._match = at
                if not self._sees(at):
                    self._scroll(at)
                return
        self._match = -1
        self._told = f"not found: {self._sought}"

    def _marked(self, line: Iterable[Piece]) -> Iterator[Piece]:
        """Yield the pieces of the line found, with the text sought in reverse."""
        text = "".join(piece.text for piece in line)
        start = text.lower().find(self._sought.lower())
        if len(text.lower()) != len(text):
            start = len(text)  # rare letters that have no single one in lower case
        end, at = start + len(self._sought), 0
        for piece in line:
            for first, last, style in (
                (0, start, piece.style), (start, end, piece.style ^ REVERSE),
                (end, len(text), piece.style),
            ):
                part = piece.text[max(0, first - at):max(0, last - at)]
                if part:
                    yield piece._replace(text=part, style=style)
            at += len(piece.text)

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
                for piece in (self._marked(line) if at == self._match else line)
            )] for at, line in enumerate(seen, self._top)
        ]
        frame += [[] for _ in range(self._height - len(seen))]
        return [*frame, self._status()]

    def _status(self) -> list[Piece]:
        last = min(self._top + self._height, len(self._page.lines))
        if self._typed is not None or self._told:
            text = self._told if self._typed is None else f"/{self._typed}"
            text = text[-(self._columns - 2):]
            while sum(cells(char) for char in text) > self._columns - 2:
                text = text[1:]
            wide = sum(cells(char) for char in text)
            return [Piece(f" {text}" + (self._columns - 1 - wide) * " ", REVERSE)]
        left, right = f" {self.topic}", f"{last}/{len(self._page.lines)} "
        for keys in KEYS:
            if len(left) + len(keys) + len(right) + 4 <= self._columns:
                right = f"{keys}  {right}"
                break
        left = left[:self._columns - len(right) - 1]
        return [Piece(left.ljust(self._columns - len(right)) + right, REVERSE)]
