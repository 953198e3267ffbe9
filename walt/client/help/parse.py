"""The Markdown of help pages as blocks; the rules are those of CommonMark and of GFM's tables."""

from __future__ import annotations

import re
from typing import Container, List, NamedTuple, Optional, Tuple, Union

from walt.client.help.inline import Span, code_spans, read_spans
from walt.client.help.text import clean

Spans = Tuple[Span, ...]
MAX_DEPTH = 6  # of lists and quotes in one another; deeper ones are plain text

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^`]*")
_HEADING = re.compile(r" {0,3}(#{1,6})(?: (.*))?")
_QUOTE = re.compile(r" {0,3}> ?")
_ITEM = re.compile(r" {0,3}(?:([-+*])|(\d{1,9})([.)]))(?=( *))(?: |$)")
_DELIMITER = re.compile(r" *:?-+:? *")
_PIPE = re.compile(r"(?<!\\)\|")


class Heading(NamedTuple):
    """A title; `level` is 1 for that of the page."""

    level: int
    spans: Spans


class Paragraph(NamedTuple):
    """Text to be wrapped; a newline in a span is a line break."""

    spans: Spans


class Code(NamedTuple):
    """Lines to be shown as they are."""

    lines: Tuple[Spans, ...]


class Rule(NamedTuple):
    """A line across the page."""


class Table(NamedTuple):
    """Rows of as many cells as the header has."""

    header: Tuple[Spans, ...]
    rows: Tuple[Tuple[Spans, ...], ...]


class Quote(NamedTuple):
    """Blocks of somebody else."""

    blocks: Tuple[Block, ...]


class Item(NamedTuple):
    """One point of a list; `marker` is empty, or its number."""

    marker: str
    blocks: Tuple[Block, ...]


class Listing(NamedTuple):
    """The points of a list."""

    items: Tuple[Item, ...]


Block = Union[Heading, Paragraph, Code, Rule, Table, Quote, Listing]
_Found = Optional[Tuple[Block, int]]  # a block, and the line after it


def parse(text: str, topics: Container[str]) -> tuple[Block, ...]:
    """Return the blocks of a page; any text is a page. Links lead to `topics` only."""
    return _Reader(topics).blocks(clean(text).split("\n"), 0)


class _Reader:
    def __init__(self, topics: Container[str]) -> None:
        self._topics = topics

    def blocks(self, lines: list[str], depth: int) -> tuple[Block, ...]:
        """Return the blocks that these lines make."""
        found: List[Block] = []
        at = 0
        while at < len(lines):
            if not lines[at].strip():
                at += 1
                continue
            block, at = (
                self._fence(lines, at) or self._indented(lines, at) or self._heading(lines, at)
                or self._rule(lines, at) or self._quote(lines, at, depth)
                or self._table(lines, at) or self._listing(lines, at, depth)
                or self._paragraph(lines, at)
            )
            found.append(block)
        return tuple(found)

    def _spans(self, text: str) -> Spans:
        return read_spans(text, self._topics)

    def _code(self, lines: list[str]) -> Code:
        return Code(tuple(code_spans(line, self._topics) for line in lines))

    def _fence(self, lines: list[str], at: int) -> _Found:
        match = _FENCE.fullmatch(lines[at])
        if match is None:
            return None
        fence = match[1]
        end = at + 1
        while end < len(lines):
            line = lines[end].strip()
            if len(line) >= len(fence) and not line.strip(fence[0]):
                return self._code(lines[at + 1:end]), end + 1
            end += 1
        return self._code(lines[at + 1:]), end

    def _indented(self, lines: list[str], at: int) -> _Found:
        end = at
        while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
            end += 1
        code = [line[4:] for line in lines[at:end]]
        while code and not code[-1].strip():
            code.pop()
        return (self._code(code), end) if code else None

    def _heading(self, lines: list[str], at: int) -> _Found:
        match = _HEADING.fullmatch(lines[at])
        if match is None:
            return None
        text = (match[2] or "").strip()
        bare = text.rstrip("#")
        if not bare or bare.endswith(" "):
            text = bare.rstrip()
        return Heading(len(match[1]), self._spans(text)), at + 1

    def _rule(self, lines: list[str], at: int) -> _Found:
        return (Rule(), at + 1) if _is_rule(lines[at]) else None

    def _quote(self, lines: list[str], at: int, depth: int) -> _Found:
        inside = []
        while at < len(lines):
            match = _QUOTE.match(lines[at])
            if match is None or depth >= MAX_DEPTH:
                break
            inside.append(lines[at][match.end():])
            at += 1
        return (Quote(self.blocks(inside, depth + 1)), at) if inside else None

    def _table(self, lines: list[str], at: int) -> _Found:
        if "|" not in lines[at] or at + 1 == len(lines):
            return None
        header = _split(lines[at])
        delimiter = _split(lines[at + 1])
        if len(delimiter) != len(header) or not all(map(_DELIMITER.fullmatch, delimiter)):
            return None
        rows = []
        at += 2
        while at < len(lines) and lines[at].strip() and not _interrupts(lines[at]):
            row = (_split(lines[at]) + len(header) * [""])[:len(header)]
            rows.append(tuple(map(self._spans, row)))
            at += 1
        return Table(tuple(map(self._spans, header)), tuple(rows)), at

    def _listing(self, lines: list[str], at: int, depth: int) -> _Found:
        items = []
        kind = None
        while at < len(lines) and depth < MAX_DEPTH:
            match = _ITEM.match(lines[at])
            if match is None or _is_rule(lines[at]):
                break
            if kind is None:
                kind = match[1] or match[3]
            if kind != (match[1] or match[3]):
                break
            inside, at = _item_lines(lines, at, match)
            items.append(Item(match[2] or "", self.blocks(inside, depth + 1)))
        return (Listing(tuple(items)), at) if items else None

    def _paragraph(self, lines: list[str], at: int) -> tuple[Block, int]:
        text = ""
        while True:
            line = lines[at]
            at += 1
            text += line.strip()
            if at == len(lines) or not lines[at].strip() or _interrupts(lines[at]):
                return Paragraph(self._spans(text)), at
            if text.endswith("\\"):
                text = text[:-1] + "\n"
            else:
                text += "\n" if line.endswith("  ") else " "


def _item_lines(lines: list[str], at: int, match: re.Match[str]) -> tuple[list[str], int]:
    """Return the lines of one point without their margin, and the line after it."""
    spaces = len(match[4])
    margin = match.end(3 if match[3] else 1) + (spaces if 1 <= spaces <= 4 else 1)
    inside = [lines[at][margin:]]
    at += 1
    while at < len(lines):
        line = lines[at]
        own = len(line) - len(line.lstrip(" ")) >= margin
        if not line.strip():
            after = next((below for below in lines[at:] if below.strip()), "")
            if len(after) - len(after.lstrip(" ")) < margin:
                while at < len(lines) and not lines[at].strip():
                    at += 1
                break
            inside.append("")
        elif own:
            inside.append(line[margin:])
        elif _interrupts(line) or _ITEM.match(line) or not inside[-1].strip():
            break
        else:  # the paragraph goes on without its margin
            inside.append(line.strip())
        at += 1
    return inside, at


def _interrupts(line: str) -> bool:
    """Tell whether a line ends the paragraph before it."""
    item = _ITEM.match(line)
    return bool(
        _FENCE.fullmatch(line) or _HEADING.fullmatch(line) or _QUOTE.match(line) or _is_rule(line)
        or (item is not None and item[2] in (None, "1") and line[item.end():].strip())
    )


def _is_rule(line: str) -> bool:
    marks = line.replace(" ", "")
    return len(marks) >= 3 and marks[0] in "-*_" and not marks.strip(marks[0])


def _split(line: str) -> list[str]:
    line = line.strip()
    if line.startswith("|"):
        line = line[1:]
    if line.endswith("|") and not line.endswith("\\|"):
        line = line[:-1]
    return [cell.strip().replace("\\|", "|") for cell in _PIPE.split(line)]
