"""Sentences about several items (spec user-surface §1.3)."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence


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


_KEYS = "abcdefghijklmnopqrstuvwxyz0123456789-._"


def near(word: str, known: Container[str]) -> str | None:
    """Return a known word that one slip of a finger turns into `word`, if there is one.

    A letter too many, too few, wrong, or two of them swapped. It looks up some thousands of
    words, however many are known. Other numbers are no slips: vnode2 is not meant by vnode1.
    """
    if len(word) > 63:
        return None
    for at in range(len(word) + 1):
        before, after = word[:at], word[at:]
        slips = [before + after[1:], before + after[1:2] + after[:1] + after[2:]]
        slips += [before + key + after for key in _KEYS]
        if after and not after[0].isdigit():
            slips += [before + key + after[1:] for key in _KEYS]
        for slip in slips:
            if slip in known:
                return slip
    return None


def meant(word: str, known: Container[str]) -> str:
    """Return `did you mean …? `, or nothing."""
    found = near(word, known)
    return f"did you mean {found}? " if found else ""
