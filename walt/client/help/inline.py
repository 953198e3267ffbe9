"""Text inside a block: emphasis, code, and links to other topics."""

from __future__ import annotations

import re
from typing import Container, NamedTuple

_TOKEN = re.compile(
    r"\\([!-/:-@\[-`{-~])"  # a character taken as it is
    r"|(`+)"
    r"|\[([^\[\]]*)\]\(([^()\s]*)\)"
    r"|(\*\*|\*|__|_)"
)
_SHOW = re.compile(r"\bwalt help show ([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)")


class Span(NamedTuple):
    """Text of one appearance; `topic` is where it leads to, if anywhere."""

    text: str
    bold: bool = False
    italic: bool = False
    code: bool = False
    topic: str = ""


class _Piece:
    """A span in the making: what follows may still change it."""

    def __init__(self, text: str, code: bool = False, topic: str = "") -> None:
        self.text = text
        self.bold = self.italic = False
        self.code = code
        self.topic = topic


def read_spans(text: str, topics: Container[str]) -> tuple[Span, ...]:
    """Return the spans of a paragraph, a heading or a cell.

    The rules are those of CommonMark for escapes, code, emphasis and links,
    without their rarest cases (emphasis marks that cross one another).
    """
    pieces: list[_Piece] = []
    opened: list[tuple[str, int]] = []  # mark, and the place of its piece
    at = 0
    while True:
        token = _TOKEN.search(text, at)
        if token is None:
            break
        pieces.append(_Piece(text[at:token.start()]))
        at = token.end()
        escaped, ticks, label, target, mark = token.groups()
        if escaped is not None:
            pieces.append(_Piece(escaped))
        elif ticks is not None:
            closing = re.compile(f"(?<!`){ticks}(?!`)").search(text, at)
            if closing is None:
                pieces.append(_Piece(ticks))
            else:
                pieces.append(_code(text[at:closing.start()], topics))
                at = closing.end()
        elif mark is not None:
            _emphasis(pieces, opened, mark, text[:token.start()][-1:], text[at:at + 1])
        else:
            pieces += _link(label, target, topics)
    pieces.append(_Piece(text[at:]))
    return tuple(
        Span(piece.text, piece.bold, piece.italic, piece.code, piece.topic)
        for piece in pieces if piece.text
    )


def code_spans(line: str, topics: Container[str]) -> tuple[Span, ...]:
    """Return the spans of a line of a code block; commands that show a topic lead to it."""
    found = []
    at = 0
    for match in _SHOW.finditer(line):
        if match[1] in topics:
            found.append(Span(line[at:match.start()], code=True))
            found.append(Span(match[0], code=True, topic=match[1]))
            at = match.end()
    found.append(Span(line[at:], code=True))
    return tuple(span for span in found if span.text)


def _code(text: str, topics: Container[str]) -> _Piece:
    text = text.replace("\n", " ")
    if text.strip() and text[0] == text[-1] == " ":
        text = text[1:-1]
    match = _SHOW.fullmatch(text)
    return _Piece(text, True, match[1] if match is not None and match[1] in topics else "")


def _link(label: str, target: str, topics: Container[str]) -> list[_Piece]:
    topic = re.sub(r"\.(?:md|html)$", "", target.partition("#")[0])
    pieces = []
    for span in read_spans(label or target, topics):
        piece = _Piece(span.text, span.code, topic if topic in topics else span.topic)
        piece.bold, piece.italic = span.bold, span.italic
        pieces.append(piece)
    if topic not in topics and label and target and label != target:
        pieces.append(_Piece(f" ({target})"))
    return pieces


def _emphasis(
    pieces: list[_Piece], opened: list[tuple[str, int]], mark: str, before: str, after: str,
) -> None:
    """Take an emphasis mark: an end, a start, or mere text."""
    inside_word = mark[0] == "_" and before.isalnum() and after.isalnum()
    place = next(
        (number for number in reversed(range(len(opened))) if opened[number][0] == mark), None
    )
    if place is not None and not before.isspace() and not inside_word:
        start = opened[place][1]
        del opened[place:]
        pieces[start].text = ""
        for piece in pieces[start:]:
            piece.bold = piece.bold or len(mark) == 2
            piece.italic = piece.italic or len(mark) == 1
        return
    if after and not after.isspace() and not inside_word:
        opened.append((mark, len(pieces)))
    pieces.append(_Piece(mark))
