"""Names of the members of a set, as attributes (spec user-surface §2.7)."""

from __future__ import annotations

import re

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

_OTHERS = re.compile("[^0-9A-Za-z]")
_CAMEL = re.compile("([a-z0-9])([A-Z])")


def shortcut(name: str) -> str:
    """Return a name in lower case with underscores: `vN2` gives `v_n2`."""
    return _CAMEL.sub(r"\1_\2", _OTHERS.sub("_", name)).lower()


def shortcuts(names: Iterable[str]) -> dict[str, str]:
    """Return a shortcut for each name; of equal ones the second gets `_2`, and so on."""
    found: dict[str, str] = {}
    used: set[str] = set()
    for name in sorted(names):
        wanted, number = shortcut(name), 1
        short = wanted
        while short in used:
            number += 1
            short = f"{wanted}_{number}"
        used.add(short)
        found[name] = short
    return found
