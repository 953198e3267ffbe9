"""Archives on a terminal: a table of points, bars and plots of results."""

from __future__ import annotations

from statistics import median

from walt.client.experiment.plotting import plot
from walt.common.controls import visible
from walt.common.tables import render_table

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.experiment.archive import Archive

WIDTH = 40  # columns of the longest bar


def _cell(text: str) -> str:
    return visible(text).replace("\n", "\\n")


def where(point: dict[str, Any]) -> str:
    """Return the values of a point."""
    return " ".join(f"{name}={value}" for name, value in point["values"].items()) or "-"


def measured(points: dict[int, dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return the numbers of points that are done: by result, then by the values of variables."""
    found: dict[str, dict[str, list[float]]] = {}
    for point in points.values():
        if point["outcome"] != "done":
            continue
        for name, numbers in point["results"].items():
            if numbers:
                found.setdefault(name, {}).setdefault(where(point), []).append(median(numbers))
    return found


def table(archive: Archive) -> str:
    """Return a table of all points."""
    points = archive.points()
    variables = sorted({name for point in points.values() for name in point["values"]})
    results = sorted({name for point in points.values() for name in point["results"]})
    rows = [
        {
            "point": point["number"], **point["values"], "rep": point["repetition"],
            "outcome": point["outcome"],
            **{
                name: f"{median(numbers):g}"
                for name, numbers in point["results"].items() if numbers
            },
            "seconds": f"{point['seconds']:.1f}", "reason": visible(point["reason"])[:80],
        }
        for _, point in sorted(points.items())
    ]
    columns = ["point", *variables, "rep", "outcome", *results, "seconds"]
    if any(row["reason"] for row in rows):
        columns.append("reason")
    return render_table(columns, rows)


def bars(archive: Archive) -> str:
    """Return, for each result, a bar for the median of each combination of values, and a plot
    over a variable that has numbers.
    """
    texts = []
    for name, by_values in sorted(measured(archive.points()).items()):
        medians = {place: median(numbers) for place, numbers in by_values.items()}
        top = max(map(abs, medians.values())) or 1.0
        wide = max(len(_cell(place)) for place in medians)
        texts.append("\n".join([f"{name}, medians:", *(
            f"  {_cell(place):{wide}}  {'#' * max(0, round(WIDTH * value / top))} {value:g}"
            f" (n={len(by_values[place])})" for place, value in medians.items()
        )]))
        drawn = plot(name, [
            point for point in archive.points().values()
            if point["outcome"] == "done" and point["results"].get(name)
        ])
        if drawn is not None:
            texts.append(drawn)
    return "\n\n".join(texts)
