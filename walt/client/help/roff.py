"""Blocks of a help page as a manual page: man(7) of groff and mandoc, tables by tbl(1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from walt.client.help.inline import Span
from walt.client.help.parse import (
    Block,
    Code,
    Heading,
    Listing,
    Paragraph,
    Quote,
    Spans,
    Table,
)

INDENT = 4  # columns, of examples and lists


def escaped(text: str) -> str:
    r"""Return a text in which nothing is a request or an escape; `-` stays what is typed."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return text.replace("^", "\\(ha").replace("~", "\\(ti").replace("'", "\\(aq")


def lines(text: str) -> Iterator[str]:
    """Return lines of escaped text, none of which begins like a request."""
    for line in text.split("\n"):
        if line.strip():
            yield f"\\&{line}" if line.startswith(".") else line


def quoted(text: str) -> str:
    """Return a text as one argument of a request."""
    return '"' + escaped(" ".join(text.split())).replace('"', "\\(dq") + '"'


def page(
    name: str, section: int, summary: str, blocks: Iterable[Block], *, version: str
) -> str:
    """Return a manual page; `summary` is what `man -k` shows of it, in a line."""
    head = [
        "'\\\" t", f".TH {quoted(name.upper())} {section} \"\" {quoted(f'WalT {version}')}"
        ' "Manual of WalT"',
        ".nh", ".ad l",  # names that somebody types are not cut
        ".SH NAME", f"{escaped(name)} \\- {escaped(' '.join(summary.split()))}",
    ]
    return "\n".join([*head, *_blocks(blocks, first=True)]) + "\n"


def _blocks(blocks: Iterable[Block], *, first: bool = False) -> Iterator[str]:
    """Return requests and text; `first`: text that no heading precedes has one."""
    for block in blocks:
        if first and not isinstance(block, Heading):
            yield ".SH DESCRIPTION"
            first = False
        if isinstance(block, Heading):
            if block.level > 1:  # the title of the page is its summary
                text = "".join(span.text for span in block.spans)
                yield f"{'.SH' if block.level == 2 else '.SS'} {quoted(text)}"
                first = False
        elif isinstance(block, Paragraph):
            yield ".PP"
            yield from _text(block.spans)
        elif isinstance(block, Code):
            yield from _example(block)
        elif isinstance(block, Table):
            yield from _table(block)
        elif isinstance(block, Listing):
            for item in block.items:
                yield f".IP {quoted(item.marker) if item.marker else chr(92) + '(bu'} {INDENT}"
                yield from _inside(item.blocks)
        elif isinstance(block, Quote):
            yield f".RS {INDENT}"
            yield from _blocks(block.blocks)
            yield ".RE"


def _inside(blocks: Iterable[Block]) -> Iterator[str]:
    """Return the blocks of a point: its first paragraph stands beside the mark."""
    found = list(blocks)
    if found and isinstance(found[0], Paragraph):
        yield from _text(found[0].spans)
        found = found[1:]
    if found:
        yield f".RS {INDENT}"
        yield from _blocks(found)
        yield ".RE"


def _text(spans: Spans) -> Iterator[str]:
    return lines("".join(map(_span, spans)))


def _span(span: Span) -> str:
    font = "B" if span.bold or span.code else "I" if span.italic else ""
    text = escaped(span.text)
    if font and text.strip():
        return f"\\f{font}{text}\\fP"
    return text


def _example(block: Code) -> Iterator[str]:
    yield ".PP"
    yield f".RS {INDENT}"
    yield ".EX"
    for spans in block.lines:
        yield "\\&" + escaped("".join(span.text for span in spans))
    yield ".EE"
    yield ".RE"


def _table(block: Table) -> Iterator[str]:
    columns = len(block.header)
    yield ".PP"
    yield ".TS"
    # Of the widths only the last one gives way: names and numbers stay whole.
    yield " ".join(["lb"] * columns)
    yield " ".join(["lt"] * (columns - 1) + ["ltx"]) + "."
    for row in (block.header, *block.rows):
        cells = ["".join(map(_span, cell)).replace("\n", " ") for cell in row]
        yield "\t".join(f"T{{\n{next(lines(cell), chr(92) + '&')}\nT}}" for cell in cells)
    yield ".TE"
