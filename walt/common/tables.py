"""Tables as the walt command prints them (spec user-surface §1.3)."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def render_table(columns: list[str], rows: list[dict]) -> str:
    """Return a table: header, dashes, left-aligned cells, two spaces between columns.

    A missing value is blank. The text has no final newline.
    """
    return render_columns(columns, [[row.get(name) for row in rows] for name in columns])


def render_columns(names: list[str], columns: Iterable[Sequence[object]]) -> str:
    """Return the same of the values of each column."""
    cells = [*map(_column, columns)]
    widths = [
        max([len(name), *map(len, column)]) for name, column in zip(names, cells)
    ]
    form = "  ".join(f"%-{width}s" for width in widths)
    lines = [tuple(names), tuple("-" * width for width in widths), *zip(*cells)]
    return "\n".join([(form % line).rstrip() for line in lines])


def render_cards(columns: list[str], rows: list[dict]) -> str:
    """Return rows one below the other, a line for each cell that is not blank."""
    width = max(map(len, columns))
    cards = []
    for row in rows:
        cells = [(name, _text(row.get(name))) for name in columns]
        cards.append("\n".join(f"{name.ljust(width)}  {text}" for name, text in cells if text))
    return "\n\n".join(cards)


def without_empty_columns(columns: list[str], rows: list[dict]) -> list[str]:
    """Return the columns that have at least one value."""
    return [name for name in columns if any(row.get(name) not in (None, "") for row in rows)]


def _column(values: Sequence[object]) -> list[str]:
    """Return the cells of a column: of thousands of rows, most are texts of one line."""
    texts = [
        "" if value is None else value if type(value) is str else str(value) for value in values
    ]
    return [*map(_text, texts)] if "\n" in "".join(texts) else texts


def _text(value: object) -> str:
    if value is None:
        return ""
    text = value if type(value) is str else str(value)
    # A cell is on one line, whatever others put into it: it makes no rows.
    return text.replace("\n", "\\n") if "\n" in text else text
