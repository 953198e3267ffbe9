"""The shape of JSON answers: what their fields are called, their types, what they mean.

`docs/amp.md` shows it; tests compare each answer with it (`tests/guard.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

# The types of fields, and what Python has for them. `?` after a type: null is possible.
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,), "truth": (bool,), "whole": (int,), "number": (int, float),
    "texts": (list,), "object": (dict,), "objects": (list,),
}


class Field(NamedTuple):
    """One field: a type of TYPES, its meaning with its unit, whether null is possible.

    With `optional`, some objects lack it.
    """

    kind: str
    meaning: str
    null: bool = False
    optional: bool = False

    def wrong(self, value: Any) -> bool:
        """Tell whether a value is none of these."""
        if value is None:
            return not self.null
        if isinstance(value, bool) and self.kind != "truth":
            return True
        if self.kind == "texts" and isinstance(value, list):
            return not all(isinstance(part, str) for part in value)
        if self.kind == "objects" and isinstance(value, list):
            return not all(isinstance(part, dict) for part in value)
        return not isinstance(value, TYPES[self.kind])


def field(text: str) -> Field:
    """Return the field that `text? what it means` describes; `[text]` is one that may lack."""
    kind, _, meaning = text.partition(" ")
    optional = kind.startswith("[")
    kind = kind.strip("[]")
    found = Field(kind.rstrip("?"), meaning, kind.endswith("?"), optional)
    if found.kind not in TYPES:
        raise ValueError(f"{found.kind!r} is no type of a field")
    return found


class Row:
    """An object with these fields, and no others."""

    def __init__(self, **fields: str) -> None:
        self.fields = {name: field(text) for name, text in fields.items()}

    def errors(self, value: Any, where: str = "") -> Iterator[str]:
        """Return what is wrong with a value."""
        if not isinstance(value, dict):
            yield f"{where or 'it'} is no object"
            return
        for name in value.keys() - self.fields.keys():
            yield f"{where}.{name} is not described"
        for name, member in self.fields.items():
            if name not in value:
                if not member.optional:
                    yield f"{where}.{name} is missing"
            elif member.wrong(value[name]):
                yield f"{where}.{name} is {value[name]!r}, not {member.kind}"

    def lines(self) -> Iterator[str]:
        """Return the lines of a Markdown list that describe it."""
        for name, member in self.fields.items():
            kind = member.kind + (" or null" if member.null else "")
            lacks = "; not in every object" if member.optional else ""
            yield f"- `{name}` ({kind}{lacks}): {member.meaning}"


class Rows:
    """A list of such objects."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def errors(self, value: Any, where: str = "") -> Iterator[str]:
        """Return what is wrong with a value."""
        if not isinstance(value, (list, tuple)):
            yield f"{where or 'it'} is no list"
            return
        for number, row in enumerate(value):
            yield from self.row.errors(row, f"{where}[{number}]")

    def lines(self) -> Iterator[str]:
        """Return the lines of a Markdown list that describe it."""
        yield from self.row.lines()


class Tables:
    """An object with lists of rows of one shape, and numbers beside them."""

    def __init__(self, row: Row, *names: str, **numbers: str) -> None:
        self.rows = Rows(row)
        self.names = names
        self.numbers = numbers

    def errors(self, value: Any, where: str = "") -> Iterator[str]:
        """Return what is wrong with a value."""
        if not isinstance(value, dict) or value.keys() != {*self.names, *self.numbers}:
            yield f"{where or 'it'} is no object of {[*self.names, *self.numbers]}"
            return
        for name in self.names:
            yield from self.rows.errors(value[name], f"{where}.{name}")
        for name in self.numbers:
            if type(value[name]) is not int:
                yield f"{where}.{name} is no number"

    def lines(self) -> Iterator[str]:
        """Return the lines of a Markdown list that describe it."""
        for name, meaning in self.numbers.items():
            yield f"- `{name}` (whole): {meaning}"
        yield f"- {', '.join(f'`{name}`' for name in self.names)}: lists of objects, in which"
        yield from (f"  {line}" for line in self.rows.lines())


    def listed(self, *columns: str) -> Listed:
        """Return the same tables of some of the fields, with lists as rows."""
        return Listed(self, columns)


class Listed:
    """Tables whose rows are lists, of the fields that the list `columns` beside them names."""

    def __init__(self, tables: Tables, columns: Sequence[str]) -> None:
        self.tables = tables
        self.fields = {name: tables.rows.row.fields[name] for name in columns}

    def errors(self, value: Any, where: str = "") -> Iterator[str]:
        """Return what is wrong with a value."""
        members = {"columns", *self.tables.names, *self.tables.numbers}
        if not isinstance(value, dict) or value.keys() != members:
            yield f"{where or 'it'} is no object of {sorted(members)}"
            return
        if value["columns"] != [*self.fields]:
            yield f"{where}.columns are {value['columns']!r}"
        for name in self.tables.names:
            for number, row in enumerate(value[name]):
                if len(row) != len(self.fields) or any(
                    member.wrong(part)
                    for member, part in zip(self.fields.values(), row, strict=True)
                ):
                    yield f"{where}.{name}[{number}] is {row!r}"
        for name in self.tables.numbers:
            if type(value[name]) is not int:
                yield f"{where}.{name} is no number"

    def lines(self) -> Iterator[str]:
        """Return the lines of a Markdown list that describe it."""
        for name, meaning in self.tables.numbers.items():
            yield f"- `{name}` (whole): {meaning}"
        yield "- `columns` (texts): the names below, in the order of the values of each row"
        names = ", ".join(f"`{name}`" for name in self.tables.names)
        yield f"- {names}: lists of lists, of these values:"
        row = Row()
        row.fields = self.fields
        yield from (f"  {line}" for line in row.lines())


class Pairs:
    """A list of lists of two values, described as fields are."""

    def __init__(self, first: str, second: str) -> None:
        self.fields = field(first), field(second)

    def errors(self, value: Any, where: str = "") -> Iterator[str]:
        """Return what is wrong with a value."""
        if not isinstance(value, (list, tuple)):
            yield f"{where or 'it'} is no list"
            return
        for number, pair in enumerate(value):
            if len(pair) != 2 or any(
                member.wrong(part) for member, part in zip(self.fields, pair, strict=True)
            ):
                yield f"{where}[{number}] is {pair!r}"

    def lines(self) -> Iterator[str]:
        """Return the lines of a Markdown list that describe it."""
        yield f"- each a list of two: {', '.join(member.meaning for member in self.fields)}"


class OrNull:
    """Such an object, or null."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def errors(self, value: Any, where: str = "") -> Iterator[str]:
        """Return what is wrong with a value."""
        if value is not None:
            yield from self.row.errors(value, where)

    def lines(self) -> Iterator[str]:
        """Return the lines of a Markdown list that describe it."""
        yield from self.row.lines()


Shape = Row | Rows | Tables | Listed | Pairs | OrNull
