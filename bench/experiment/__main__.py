"""Run with `python -m bench.experiment`, as root, on a machine that runs the system tests.

Points of one command on three emulated nodes, beside `walt node run` of the same command, which
is one connection to each node; archives of many log lines, written and compared. With the word
`archives` that part alone, which needs no root.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.system.live import LivePlatform
from tests.system.load import figure, run_bench, wall_times, walt_command
from walt.client.experiment.archive import INDEX, Archive, Folder, write_json
from walt.client.experiment.clocks import Clock, Sample
from walt.client.experiment.comparing import compare
from walt.client.experiment.log_counts import index
from walt.client.experiment.log_file import Aligner, Lines, lines_of, write
from walt.client.experiment.sealing import seal
from walt.common.records import block_of

POINTS, LINES, GROUP = 20, 10_000_000, 10_000
SPENT: list[float] = []  # seconds for the group of lines under way
WRITING: list[float] = []  # seconds for each archive
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
    """Print what a point costs whose command does nothing."""
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
    told = await platform.runner.run(
        [sys.executable, "-m", "bench.experiment.commands", "vm1", "vm2", "vm3"], env=environment,
        timeout=120,
    )
    bare = float(told.stdout)
    figure("a point with one command on three nodes", spent * 1000, "ms")
    figure("  the command alone, on shells that are there", bare * 1000, "ms")
    figure("  what the point adds to it", (spent - bare) * 1000, "ms", 50)
    figure("  walt node run of the same", alone, "ms")


def lines(second: bool) -> Iterator[Lines]:
    """Yield log lines of two streams, aligned."""
    aligner = Aligner(
        {"vm1": Clock([Sample(1e9 + 300 * n, n * 1e-3, 1e-3) for n in range(30)])}
    )
    tail, spans = "x" * 80, [(0, 1 << 60)]
    for start in range(0, LINES, GROUP):
        block = block_of([
            (1e9 + number * 5e-4, "vm1",
             "other" if second and number == LINES // 2 else "mark", f"line {number} {tail}")
            for number in range(start, start + GROUP)
        ])
        began = time.perf_counter()
        found = lines_of(block, lambda stream: True)
        aligner.align(found)
        found = found.within(spans)
        SPENT.append(time.perf_counter() - began)
        yield found


def archive(place: Path, second: bool) -> Path:
    """Write an archive with many log lines."""
    folder = Folder(place)
    folder.begin({
        "format": 1, "name": "bench", "licence": "", "run": "0" * 12, "began": 1e9, "ended": 2e9,
        "state": "done", "walt": {}, "roles": {}, "nodes": {}, "images": {}, "booted": {},
        "commit": None, "spans": [],
    }, TEXT, {})
    began, made = time.perf_counter(), 0.0

    def timed() -> Iterator[Lines]:
        """Leave out the time in which the lines are made up."""
        nonlocal made
        moments = lines(second)
        while True:
            start = time.perf_counter()
            found = next(moments, None)
            made += time.perf_counter() - start - (SPENT.pop() if found is not None else 0.0)
            if found is None:
                return
            yield found

    file = write(place, timed())
    WRITING.append(time.perf_counter() - began - made)
    write_json(place / INDEX, index(
        file, {"mark": LINES - 1, "other": 1} if second else {"mark": LINES}
    ))
    return place


def archives(base: Path) -> None:
    """Print how fast archives are written and compared."""
    first, second = archive(base / "first", False), archive(base / "second", True)
    figure(f"lines written a second, of {LINES} (200,000 asked)", 2 * LINES / sum(WRITING), "")
    for name, folder in (("first.zip", first), ("second.zip", second)):
        seal(folder, base / name)
    for pair in ((first, second), (base / "first.zip", base / "second.zip")):
        start = time.perf_counter()
        found = [
            difference for difference in compare(*map(Archive, pair)) if difference.mark != "="
        ]
        spent = time.perf_counter() - start
        assert [difference.category for difference in found] == ["log"], found
        figure(f"diff of two archives of {LINES} lines, {pair[0].name}", spent, "s", 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figure("  memory of the process at most", peak, "MiB", 300)


async def main(reactor: Any) -> None:
    """Print the figures."""
    if "archives" in sys.argv:
        with tempfile.TemporaryDirectory() as base:
            archives(Path(base))
        return
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
