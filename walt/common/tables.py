"""Tables as the walt command prints them (spec user-surface §1.3)."""

from __future__ import annotations


def render_table(columns: list[str], rows: list[dict]) -> str:
    """Return a table: header, dashes, left-aligned cells, two spaces between columns.

    A missing value is blank. The text has no final newline.
    """
    cells = [[_text(row.get(name)) for name in columns] for row in rows]
    widths = [
        max([len(name)] + [len(line[at]) for line in cells]) for at, name in enumerate(columns)
    ]
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in lines
    )


def without_empty_columns(columns: list[str], rows: list[dict]) -> list[str]:
    """Return the columns that have at least one value."""
    return [name for name in columns if any(row.get(name) not in (None, "") for row in rows)]


def _text(value: object) -> str:
    return "" if value is None else str(value)
