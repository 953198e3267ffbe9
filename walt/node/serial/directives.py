"""What a board prints on its serial line (spec node-protocols §6.3.2).

    LOGSTART                                          from here on, lines count
    LOGDEF <stream> <prefix> <separator> <format>     lines that start so are logged there
    LOGVAR <name> <value>                             a value for formats

A line with a known prefix is cut at the separator; the parts after the first one are the
`{}` (or `{0}`, `{1}`…) of the format, `{name}` is a variable.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union

MAX_DEFINITIONS = 1000
_SPEC = re.compile(r"(.?[<>^])?\d{0,3}s?")


class Problem(Exception):
    """A line of the board that cannot be used; the text says why."""


class Record(NamedTuple):
    """A line to log."""

    stream: str
    text: str


class _Definition(NamedTuple):
    stream: str
    separator: str
    format: str


class _Formatter(string.Formatter):
    """Replaces fields by texts; a board gets at nothing else of the program."""

    def get_field(
        self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        key: Union[int, str] = int(field_name) if field_name.isdecimal() else field_name
        try:
            return (args[key] if isinstance(key, int) else kwargs[key]), key
        except (IndexError, KeyError):
            raise ValueError(f"there is no value {field_name!r}") from None

    def format_field(self, value: Any, format_spec: str) -> Any:
        if not _SPEC.fullmatch(format_spec):
            raise ValueError(f"{format_spec!r} is not a width")
        return super().format_field(value, format_spec)


class Board:
    """Knows what one board has said, and turns its lines into records."""

    def __init__(self) -> None:
        self._started = False
        self._definitions: dict[str, _Definition] = {}
        self._variables: dict[str, str] = {}
        self._formatter = _Formatter()

    def line(self, text: str) -> Optional[Record]:
        """Take one line; return what it logs, if it does. Raises Problem."""
        text = text.strip()
        words = text.split()
        if not words:
            return None
        if words[0] == "LOGSTART":
            self._started = True
        elif not self._started:
            return None
        elif words[0] == "LOGDEF":
            self._define(words)
        elif words[0] == "LOGVAR":
            if len(words) != 3 or len(self._variables) >= MAX_DEFINITIONS:
                raise Problem("LOGVAR wants a name and a value")
            self._variables[words[1]] = words[2]
        else:
            return self._record(text)
        return None

    def _define(self, words: list[str]) -> None:
        if len(words) < 5 or len(self._definitions) >= MAX_DEFINITIONS:
            raise Problem("LOGDEF wants a stream, a prefix, a separator and a format")
        self._definitions[words[2]] = _Definition(words[1], words[3], " ".join(words[4:]))

    def _record(self, text: str) -> Optional[Record]:
        prefixes = [definition for definition in self._definitions if text.startswith(definition)]
        if not prefixes:
            return None
        stream, separator, template = self._definitions[max(prefixes, key=len)]
        parts = text.split(separator)[1:]
        try:
            return Record(stream, self._formatter.vformat(template, parts, self._variables))
        except ValueError as error:
            raise Problem(f"the format {template!r} cannot be applied: {error}") from None
