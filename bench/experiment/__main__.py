"""Run with `python -m bench.experiment`, as root, on a machine that runs the system tests.

Points of one command on three emulated nodes, beside `walt node run` of the same command, which
is one connection to each node; archives of many log lines.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

from tests.system.live import LivePlatform
from tests.system.load import figure, run_bench, wall_times, walt_command
from walt.client.experiment.archive import Archive, Folder
from walt.client.experiment.comparing import compare

POINTS, LINES = 20, 2_000_000
TEXT = f"""\
name: bench
roles:
  all-of-them: {{model: "pc-*", image: pc-x86-64-small, count: 3}}
variables:
  N: {list(range(POINTS))}
measure:
  - all-of-them: "true"
"""


async def overhead(platform: LivePlatform) -> None:
    """Print what a point costs beside its command."""
    for name in ("vm1", "vm2", "vm3"):
        await platform.ok("node", "create", name)
    await platform.ok("node", "wait", "vm1,vm2,vm3")
    file, place = platform.base / "bench.yaml", platform.base / "run"
    file.write_text(TEXT)
    await platform.ok("experiment", "run", "--to", str(place), str(file))
    points = [json.loads(path.read_text()) for path in (place / "points").glob("*.json")]
    spent = statistics.median(point["seconds"] for point in points)
    environment = {**os.environ, **platform.environment()}
    alone = wall_times(walt_command("node", "run", "vm1,vm2,vm3", "--", "true"), environment, 9)
    figure("a point with one command on three nodes", spent * 1000, "ms")
    figure("  walt node run of the same", alone, "ms")
    figure("  difference", spent * 1000 - alone, "ms", 50)


def archive(place: Path, second: bool) -> Path:
    """Write an archive with many log lines."""
    folder = Folder(place)
    folder.begin({
        "format": 1, "name": "bench", "licence": "", "run": "0" * 12, "began": 1e9, "ended": 2e9,
        "state": "done", "walt": {}, "roles": {}, "nodes": {}, "images": {}, "booted": {},
        "commit": None,
    }, TEXT, {})
    with gzip.open(place / "logs.jsonl.gz", "wt", compresslevel=6) as file:
        for number in range(LINES):
            stream = "other" if second and number == LINES // 2 else "mark"
            file.write(f'[{number}.5, "vm1", "{stream}", "line {number} {"x" * 80}"]\n')
    return place


def archives(base: Path) -> None:
    """Print how fast archives are compared."""
    first, second = archive(base / "first", False), archive(base / "second", True)
    start = time.perf_counter()
    found = compare(Archive(first), Archive(second))
    spent = time.perf_counter() - start
    assert [one.category for one in found] == ["log"], found
    figure(f"diff of two archives of {LINES} lines", spent, "s", 10 * LINES / 1e7)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figure("  memory of the process at most", peak, "MiB", 300)


async def main(reactor: Any) -> None:
    """Print the figures."""
    platform = LivePlatform(reactor)
    try:
        await platform.import_image()
        archives(platform.base)
        await platform.start()
        await overhead(platform)
    finally:
        await platform.close()


if __name__ == "__main__":
    run_bench(main)
