"""What records of boots say: how long each stage took, and percentiles for each image."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

# In their order; a stage lasts from the one before until its own moment.
STAGES = ("started", "address", "script", "kernel", "root", "system", "ready")
PERCENTILES = (50, 95, 99)
AT_ONCE = 5000  # records in one answer of the server


def last_boots(
    names: Sequence[str], count: int, ask: Callable[[str], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the last boots of each of these nodes, `count` at most, oldest first.

    `ask` returns those of a set: thousands of nodes are asked about some at a time.
    """
    many = max(1, AT_ONCE // max(1, count))
    found = []
    for start in range(0, len(names), many):
        found += ask(",".join(names[start:start + many]))
    return sorted(found, key=lambda boot: (boot["asked"], boot["mac"]))


def elapsed(boot: dict[str, Any]) -> dict[str, float]:
    """Return the seconds from the beginning of the last try to each stage that it reached."""
    moments = {stage: boot[stage] for stage in STAGES if boot[stage] is not None}
    began = min(moments.values())
    return {stage: moment - began for stage, moment in moments.items()}


def percentile(values: list[float], percent: int) -> float:
    """Return the smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def statistics(boots: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each image how many boots there were, and percentiles of those that succeeded.

    Seconds from the beginning of the try that succeeded to each stage.
    """
    images: dict[str | None, list[dict[str, Any]]] = {}
    for boot in boots:
        images.setdefault(boot["image"], []).append(boot)
    found = []
    for image in sorted(images, key=str):
        succeeded = [elapsed(boot) for boot in images[image] if boot["outcome"] == "booted"]
        counts = {
            outcome: sum(boot["outcome"] == outcome for boot in images[image])
            for outcome in ("booted", "failed", "interrupted")
        }
        row = {"image": image, "boots": len(images[image]), **counts}
        for stage in STAGES[1:]:
            reached = [boot[stage] for boot in succeeded if stage in boot]
            row[stage] = {
                f"p{percent}": percentile(reached, percent) for percent in PERCENTILES
            } if reached else None
        found.append(row)
    return found
