"""Sentences about several items (spec user-surface §1.3)."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


MAX_NAMES = 5


def enumerate_names(names: Iterable[str]) -> str:
    """Return "a", "a and b" or "a, b and c", sorted."""
    ordered = sorted(names)
    if len(ordered) < 2:
        return "".join(ordered)
    return ", ".join(ordered[:-1]) + " and " + ordered[-1]


def some(names: Sequence[str]) -> str:
    """Return "a, b" in their order; of more than five the first ones, "and 3 more"."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


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
