"""Plots on a terminal: a result of an experiment over a variable that has numbers."""

from __future__ import annotations

from math import isfinite
from statistics import median

from walt.common.controls import visible

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

WIDTH, HEIGHT = 60, 10  # characters
SIGNS = "*o+x#@%="  # one for each combination of the other variables; `&`: several at one place


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if isfinite(value) else None


def axis_of(points: Sequence[dict[str, Any]]) -> str | None:
    """Return the first variable that has numbers alone, three of them or more."""
    for name in points[0]["values"] if points else ():
        found = {_number(point["values"].get(name)) for point in points}
        if None not in found and len(found) >= 3:
            return str(name)
    return None


def plot(name: str, points: Sequence[dict[str, Any]]) -> str | None:
    """Return the plot of the medians of a result; None where no variable is fit for an axis.

    `points` are those that are done and have this result.
    """
    axis = axis_of(points)
    if axis is None:
        return None
    series: dict[str, dict[float, list[float]]] = {}
    for point in points:
        x = _number(point["values"][axis])
        assert x is not None
        rest = " ".join(f"{key}={value}" for key, value in point["values"].items() if key != axis)
        series.setdefault(rest, {}).setdefault(x, []).append(median(point["results"][name]))
    shown = list(zip(SIGNS, series.items(), strict=False))
    dots = [
        (sign, x, median(numbers)) for sign, (_, places) in shown for x, numbers in places.items()
    ]
    left, right = min(x for _, x, _ in dots), max(x for _, x, _ in dots)
    low, high = min(0.0, *(y for _, _, y in dots)), max(0.0, *(y for _, _, y in dots))
    rows = [[" "] * WIDTH for _ in range(HEIGHT)]
    for sign, x, y in dots:
        row = rows[HEIGHT - 1 - round((HEIGHT - 1) * _share(y, low, high))]
        column = round((WIDTH - 1) * _share(x, left, right))
        row[column] = sign if row[column] in (" ", sign) else "&"
    labels = {0: f"{high:g}", HEIGHT - 1: f"{low:g}"}
    wide = max(map(len, labels.values()))
    first, last = f"{left:g}", f"{right:g}"
    lines = [
        f"{visible(name)} over {visible(axis)}, medians:",
        *(f"  {labels.get(number, ''):>{wide}} |{''.join(row).rstrip()}"
          for number, row in enumerate(rows)),
        f"  {'':{wide}} +{'-' * WIDTH}",
        f"  {'':{wide}}  {first:<{WIDTH - len(last)}}{last}",
    ]
    if len(series) > 1:
        lines += [f"  {sign} {_line(rest)}" for sign, (rest, _) in shown]
    if len(series) > len(shown):
        lines.append(f"  and {len(series) - len(shown)} more combinations")
    return "\n".join(lines)


def _line(text: str) -> str:
    return visible(text).replace("\n", "\\n")


def _share(value: float, low: float, high: float) -> float:
    """Return how far a value is between two; in the middle where these are one."""
    return (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5
