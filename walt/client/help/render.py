"""Blocks laid out for a width: lines of pieces, and where links are."""

from __future__ import annotations

from typing import Iterable, List, NamedTuple, Tuple

from walt.client.help.inline import Span
from walt.client.help.parse import (
    Block,
    Code,
    Heading,
    Item,
    Listing,
    Paragraph,
    Quote,
    Rule,
    Table,
)
from walt.client.help.text import cells

BOLD, ITALIC, CODE, TITLE, LINK, DIM, REVERSE = (1 << bit for bit in range(7))
CODE_MARGIN = 4
GAP = 2  # columns between those of a table
NARROWEST = 8  # columns that any text keeps, however deep it is


class Piece(NamedTuple):
    """Text of one style; `link` counts the links of a page, -1 is none of them."""

    text: str
    style: int = 0
    link: int = -1


class Link(NamedTuple):
    """A link: its number in pieces, the topic it leads to, the line where it starts."""

    number: int
    topic: str
    line: int


class Page(NamedTuple):
    """A page for one width; `starts` has the line at which each of its blocks starts."""

    lines: Tuple[Tuple[Piece, ...], ...]
    links: Tuple[Link, ...]
    starts: Tuple[int, ...]


Line = List[Piece]


class Signs(NamedTuple):
    """What is drawn besides the text."""

    line: str
    bullet: str
    quote: str


UNICODE = Signs("─", "•", "│")
ASCII = Signs("-", "*", "|")


def render(blocks: Iterable[Block], width: int, signs: Signs = UNICODE) -> Page:
    """Lay a page out; no line is wider than `width` columns."""
    layout = _Layout(signs)
    lines: list[Line] = []
    starts = []
    for block in blocks:
        if lines:
            lines.append([])
        starts.append(len(lines))
        lines += layout.block(block, width)
    cropped = tuple(tuple(crop(line, width)) for line in lines)
    links: dict[int, Link] = {}
    for number, line in enumerate(cropped):
        for piece in line:
            if piece.link >= 0 and piece.link not in links:
                links[piece.link] = Link(piece.link, layout.topics[piece.link], number)
    return Page(cropped, tuple(links.values()), tuple(starts))


def columns(line: Iterable[Piece]) -> int:
    """Return the columns that a line takes."""
    return sum(cells(char) for piece in line for char in piece.text)


def crop(line: Iterable[Piece], width: int) -> Line:
    """Return what fits."""
    found = []
    for piece in line:
        kept = 0
        for char in piece.text:
            if cells(char) > width:
                width = 0
                break
            width -= cells(char)
            kept += 1
        found.append(piece._replace(text=piece.text[:kept]))
    return [piece for piece in found if piece.text]


class _Layout:
    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self.topics: list[str] = []  # of each link, by its number

    def block(self, block: Block, width: int) -> list[Line]:
        """Return the lines of one block."""
        width = max(width, NARROWEST)
        if isinstance(block, Heading):
            return self._wrap(block.spans, width, TITLE if block.level == 1 else BOLD)
        if isinstance(block, Paragraph):
            return self._wrap(block.spans, width)
        if isinstance(block, Code):
            return [
                [Piece(CODE_MARGIN * " "), *line]
                for spans in block.lines for line in self._fold(spans, width - CODE_MARGIN)
            ]
        if isinstance(block, Rule):
            return [[Piece(width * self._signs.line, DIM)]]
        if isinstance(block, Table):
            return self._table(block, width)
        if isinstance(block, Quote):
            bar = Piece(self._signs.quote + " ", DIM)
            return [[bar, *line] for line in self._inside(block.blocks, width - 2)]
        return self._listing(block, width)

    def _inside(self, blocks: tuple[Block, ...], width: int) -> list[Line]:
        lines: list[Line] = []
        for block in blocks:
            if lines and not isinstance(block, Listing):
                lines.append([])
            lines += self.block(block, width)
        return lines

    def _listing(self, block: Listing, width: int) -> list[Line]:
        lines: list[Line] = []
        first = block.items[0].marker
        markers = [
            f"{int(first) + number}. " if first else f"{self._signs.bullet} "
            for number in range(len(block.items))
        ]
        margin = max(map(len, markers))
        for marker, item in zip(markers, block.items):
            lines += self._item(marker.rjust(margin), item, width - margin)
        return lines

    def _item(self, marker: str, item: Item, width: int) -> list[Line]:
        lines = self._inside(item.blocks, width) or [[]]
        margin = Piece(len(marker) * " ")
        return [[Piece(marker, DIM), *lines[0]], *([margin, *line] for line in lines[1:])]

    def _table(self, table: Table, width: int) -> list[Line]:
        available = width - GAP * (len(table.header) - 1)
        everything = (table.header, *table.rows)
        widths = _shrunk([
            max(1, *(sum(cells(char) for span in cell for char in span.text) for cell in column))
            for column in zip(*everything)
        ], available)
        lines = self._row(table.header, widths, BOLD)
        lines.append([Piece((GAP * " ").join(width * self._signs.line for width in widths), DIM)])
        for row in table.rows:
            lines += self._row(row, widths, 0)
        return lines

    def _row(
        self, row: tuple[tuple[Span, ...], ...], widths: list[int], style: int
    ) -> list[Line]:
        cell_lines = [self._wrap(cell, width, style) for cell, width in zip(row, widths)]
        lines: list[Line] = []
        for number in range(max(map(len, cell_lines))):
            line: Line = []
            for cell, width in zip(cell_lines, widths):
                part = cell[number] if number < len(cell) else []
                line += [*part, Piece((width - columns(part) + GAP) * " ")]
            lines.append(line[:-1])
        return lines

    def _chars(self, spans: Iterable[Span], style: int) -> list[Piece]:
        """Return the characters of a text one by one; links get their numbers."""
        chars = []
        before = ""
        for span in spans:
            link = -1
            if span.topic:
                if span.topic != before:
                    self.topics.append(span.topic)
                link = len(self.topics) - 1
            before = span.topic
            look = style | span.bold * BOLD | span.italic * ITALIC | span.code * CODE
            if span.topic:
                look |= LINK
            chars += [Piece(char, look, link) for char in span.text]
        return chars

    def _wrap(self, spans: Iterable[Span], width: int, style: int = 0) -> list[Line]:
        """Return a text in lines that end between words; longer words are cut."""
        lines: list[Line] = [[]]
        word: Line = []
        used = wide = 0  # columns of the line, and of the word
        gap: Line = []
        for char in [*self._chars(spans, style), Piece("\n")]:
            if char.text not in (" ", "\n"):
                if wide + cells(char.text) > width and word:
                    if lines[-1]:
                        lines.append([])
                    lines[-1] += word
                    lines.append([])
                    gap, word, used, wide = [], [], 0, 0
                word.append(char)
                wide += cells(char.text)
                continue
            if word:
                if lines[-1] and used + 1 + wide > width:
                    lines.append([])
                    used = 0
                elif lines[-1]:
                    lines[-1] += gap
                    used += 1
                lines[-1] += word
                used += wide
                word, wide = [], 0
            gap = [char._replace(text=" ")]
            if char.text == "\n":
                lines.append([])
                used = 0
        return [_joined(line) for line in lines[:-1]]

    def _fold(self, spans: Iterable[Span], width: int) -> list[Line]:
        """Return a line of code, cut where it is too long."""
        lines: list[Line] = [[]]
        used = 0
        for char in self._chars(spans, 0):
            if used + cells(char.text) > width and lines[-1]:
                lines.append([])
                used = 0
            lines[-1].append(char)
            used += cells(char.text)
        return [_joined(line) for line in lines]


def _joined(chars: Iterable[Piece]) -> Line:
    line: Line = []
    for char in chars:
        if line and line[-1][1:] == char[1:]:
            line[-1] = line[-1]._replace(text=line[-1].text + char.text)
        else:
            line.append(char)
    return line


def _shrunk(widths: list[int], available: int) -> list[int]:
    """Return the widths of columns with the widest made smaller until all fit."""
    while sum(widths) > available and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths
