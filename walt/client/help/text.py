"""Characters that a terminal may be given, and how wide they are."""

from __future__ import annotations

import unicodedata
from typing import Dict, Optional

TAB = 4
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class _Harmless(Dict[int, Optional[str]]):
    """A table for str.translate, filled with the characters that are met."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        category = unicodedata.category(char)
        found: str | None = char
        if category == "Cf":
            found = None
        elif category == "Zs":
            found = " "
        elif not char.isprintable():
            found = REPLACEMENT
        self[code] = found
        return found


_HARMLESS = _Harmless()


def clean(text: str) -> str:
    """Return a text without anything that steers a terminal.

    Line ends of all kinds become newlines, tabs and odd spaces plain ones;
    format characters (changes of direction, joiners) are removed, and whatever
    else cannot be printed is replaced.
    """
    return "\n".join(
        line.expandtabs(TAB).translate(_HARMLESS) for line in text.splitlines()
    )


def cells(char: str) -> int:
    """Return the columns that one character takes on a terminal (UAX #11)."""
    if " " <= char <= "~":
        return 1
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
