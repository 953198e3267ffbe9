"""Models of nodes, as tables show them (spec server §5.1)."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable


def compact_models(models: Iterable[str]) -> str:
    """Return models in compact notation, in their order.

    Common prefixes are grouped (`rpi-b,rpi-2-b` gives `rpi-[b|2-b]`) and optional
    ends bracketed (`x-b,x-b-plus` gives `x-b[-plus]`); the plain list is returned
    when it is not longer.
    """
    names = list(dict.fromkeys(models))
    plain = ",".join(names)
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.split("-")[0], []).append(name)
    grouped = ",".join(_group(_optional_ends(family)) for family in families.values())
    return grouped if len(grouped) < len(plain) else plain


def _optional_ends(names: list[str]) -> list[str]:
    """Merge a name with the one that only adds a last part to it."""
    merged, known = [], set(names)
    for name in names:
        if name.rpartition("-")[0] in known:
            continue
        longer = [other for other in names if other.rpartition("-")[0] == name]
        if len(longer) == 1:
            merged.append(f"{name}[-{longer[0].rpartition('-')[2]}]")
        else:
            merged += [name, *longer]
    return merged


def _group(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    prefix = os.path.commonprefix(names)  # noqa: RUF071 (of letters)
    prefix = prefix[:prefix.rfind("-") + 1]
    if not prefix:
        return ",".join(names)
    return f"{prefix}[{'|'.join(name[len(prefix):] for name in names)}]"
