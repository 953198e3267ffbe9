"""Compare boots of the full images of two trees: python -m bench.boot.compare TREE TREE

One virtual node boots them in turn, emulated, on one platform: what a change of the image's
recipe costs. The trees are checkouts of this repository, as root.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.system.live import CACHE, LivePlatform, why_not
from tests.system.load import figure, run_bench

ROUNDS = 3
BUILD = 1500.0  # seconds for an image


async def add(platform: LivePlatform, tree: Path, name: str) -> None:
    """Make the full image of a tree, under a name."""
    await platform.runner.run(
        [
            sys.executable, "-m", "walt.server.tools.image_recipe", "--variant", "full",
            "--name", f"alice/{name}:latest", "--state-dir", str(platform.state),
            "--runtime-dir", str(platform.runtime), "--cache-dir", str(CACHE),
        ],
        timeout=BUILD, env={"PYTHONPATH": str(tree)}, cwd=str(tree),
    )


async def boot(platform: LivePlatform, name: str) -> float:
    """Boot an image; return the seconds from the boot script to the end of the boot."""
    await platform.ok("node", "boot", "vnode1", name)
    await platform.ok("node", "wait", "--timeout", "600", "vnode1")
    await platform.sleep(2)
    last = json.loads(await platform.ok("node", "boots", "vnode1", "--last", "1", "--json"))
    return float(last["boots"][0]["ready"] - last["boots"][0]["script"])


async def main(reactor: Any, trees: list[Path]) -> None:
    """Print the figures."""
    missing = why_not()
    if missing is not None:
        print(f"skipped: {missing}")
        return
    platform = LivePlatform(reactor)
    try:
        await platform.import_image()
        names = [f"tree-{number}" for number, _ in enumerate(trees)]
        for tree, name in zip(trees, names, strict=True):
            await add(platform, tree, name)
        await platform.start()
        await platform.ok("node", "create", "vnode1")
        taken: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(ROUNDS):
            for name in names:
                taken[name].append(await boot(platform, name))
        medians = {name: statistics.median(boots) for name, boots in taken.items()}
        for tree, name in zip(trees, names, strict=True):
            figure(f"boot script to booted, full image of {tree.name}", medians[name], "s")
        figure("  second to first", medians[names[1]] / medians[names[0]], "times")
        print(taken)
    finally:
        await platform.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.boot.compare")
    parser.add_argument("trees", type=Path, nargs=2)
    chosen = parser.parse_args()
    run_bench(lambda reactor: main(reactor, [tree.resolve() for tree in chosen.trees]))
