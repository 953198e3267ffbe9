"""Archives on a terminal: a table of points, bars and plots of results."""

from __future__ import annotations

from collections import Counter
from statistics import median

from walt.client.experiment.plotting import plot
from walt.common.controls import visible
from walt.common.tables import render_table

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.experiment.archive import Archive

WIDTH = 40  # columns of the longest bar
TOLD = 10  # points that are named with a reason
CUT = "was cut off, as when the power fails: this point counts as never begun"


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
            "seconds": f"{point['seconds']:.1f}",
        }
        for _, point in sorted(points.items())
    ]
    return render_table(["point", *variables, "rep", "outcome", *results, "seconds"], rows)


def outcomes(archive: Archive) -> str:
    """Return how many points ended how, as in `5 done, 1 failed`."""
    counts = Counter(point["outcome"] for point in archive.points().values())
    return ", ".join(f"{count} {_cell(outcome)}" for outcome, count in counts.most_common()) \
        or "none was begun"


def reasons(archive: Archive) -> list[str]:
    """Return why points did not end well, each reason once, with its points; and lost ones."""
    found: dict[str, list[str]] = {}
    for number, point in sorted(archive.points().items()):
        if point["reason"]:
            found.setdefault(_cell(point["reason"]), []).append(str(number))
    return [f"{name} {CUT}" for name in archive.cut_points()] + [
        f"point{'s' if len(points) > 1 else ''} {', '.join(points[:TOLD])}"
        + (f" and {len(points) - TOLD} more" if len(points) > TOLD else "") + f": {reason}"
        for reason, points in found.items()
    ]


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
