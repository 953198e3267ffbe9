"""Sentences about several items (spec user-surface §1.3)."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable


MAX_NAMES = 5


def enumerate_names(names: Iterable[str]) -> str:
    """Return "a", "a and b" or "a, b and c", sorted."""
    ordered = sorted(names)
    if len(ordered) < 2:
        return "".join(ordered)
    return ", ".join(ordered[:-1]) + " and " + ordered[-1]


def subject(names: Iterable[str], kind: str = "node") -> str:
    """Return "Node a", "Nodes a, b and c", or "6 nodes" above five names."""
    ordered = sorted(names)
    if len(ordered) > MAX_NAMES:
        return f"{len(ordered)} {kind}s"
    label = kind[:1].upper() + kind[1:]
    if len(ordered) == 1:
        return f"{label} {ordered[0]}"
    return f"{label}s {enumerate_names(ordered)}"


def verb(names: Iterable[str], singular: str, plural: str) -> str:
    """Return the verb that agrees with the number of names."""
    return singular if len(list(names)) == 1 else plural
