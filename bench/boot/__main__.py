"""Run with `python -m bench.boot`, as root: one virtual node at a time, emulated (TCG)."""

from __future__ import annotations

import os
import statistics
from typing import Any

from twisted.internet.defer import maybeDeferred

from tests.system.live import LivePlatform, why_not
from tests.system.load import figure, run_bench
from tests.system.test_node_boot import NodeBootTests
from walt.server.tools.timeline import boot_timeline

ROUNDS = 2
POWER_ON = "SeaBIOS"  # the first words of the machine


STAGES = {"root mounted": "root mounted, walt-init starts", "booted": "booted (notified)"}


async def by_hand() -> dict[str, float]:
    """Return the seconds from power-on to each stage, with no server around."""
    case = NodeBootTests("test_services_of_a_booted_node")
    platform = await case._start()
    try:
        await case._booted()
        start = min(when for when, event in platform.timeline if POWER_ON in event)
        return {
            stage: min(when for when, event in platform.timeline if event == stage) - start
            for stage in STAGES
        }
    finally:
        for function, words, options in reversed(case._cleanups):
            await maybeDeferred(function, *words, **options)
        case._cleanups.clear()


async def through_the_server(reactor: Any) -> list[tuple[float, str]]:
    """Return the stages of a boot of the same image on a live platform."""
    platform = LivePlatform(reactor)
    try:
        await platform.import_image()
        await platform.start()
        await platform.ok("node", "create", "vnode1")
        await platform.ok("node", "wait", "--timeout", "150", "vnode1")
        await platform.sleep(1)
        os.environ.update(platform.environment())
        return boot_timeline("vnode1")
    finally:
        await platform.close()


async def main(reactor: Any) -> None:
    """Print the figures."""
    missing = why_not()
    if missing is not None:
        print(f"skipped: {missing}")
        return
    hand: list[dict[str, float]] = []
    server: list[dict[str, float]] = []
    for number in range(ROUNDS):
        hand.append(await by_hand())
        stages = await through_the_server(reactor)
        server.append({
            stage: next(when for when, event in stages if event == name)
            for stage, name in STAGES.items()
        })
        for when, name in stages if number == ROUNDS - 1 else ():
            figure(f"  server: {name}", when, "s")
    for stage in STAGES:
        by_server = statistics.median(boot[stage] for boot in server)
        alone = statistics.median(boot[stage] for boot in hand)
        figure(f"power-on to {stage}, by hand", alone, "s")
        figure(f"power-on to {stage}, through the server", by_server, "s")
        figure("  ratio", by_server / alone, "times", 1.3)


if __name__ == "__main__":
    run_bench(main)
