"""Run with `python -m bench.names`, as root, on a machine that runs the system tests."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred

from tests.system.live import ROOT, LivePlatform
from tests.system.load import Load, figure, run_bench

NAMES = 1000
KNOWN = "walt-server.walt"


async def main(reactor: Any) -> None:
    """Print the figures."""
    platform = LivePlatform(reactor, net="192.168.176", prefix=20)
    load = Load(platform)
    print(f"load average {os.getloadavg()[0]:.1f}")
    try:
        await platform.import_image()
        await platform.start()
        await load.register(range(1, 2))
        await platform.sleep(5)
        ready: Deferred[None] = Deferred()

        def told(line: str) -> None:
            if line.strip() == "ready":
                ready.callback(None)

        names = "".join(f"node-{number:06x}.walt\n" for number in range(2, NAMES + 2))
        asking = Deferred.fromCoroutine(platform.runner.run(
            ["nsenter", f"--net=/run/netns/{platform.namespace}", "--", sys.executable, "-m",
             "bench.names.asker", f"{platform.net}.1", KNOWN],
            stdin=names.encode(), env={"PYTHONPATH": str(ROOT)}, on_line=told, timeout=120,
        ))
        await ready
        await platform.sleep(1)
        begun = time.monotonic()
        await load.register(range(2, NAMES + 2))
        registered = time.monotonic()
        told_at_end = json.loads((await asking).stdout.splitlines()[-1])
        moments = told_at_end["moments"]
        assert len(moments) == NAMES, f"{len(moments)} names are known"
        figure(f"{NAMES} devices registered", registered - begun, "s")
        figure("  until DNS knows all of them, since then", max(moments) - registered, "s", 2)
        figure("  since the first of them came", max(moments) - begun, "s")
        figure("questions meanwhile", told_at_end["asked"], "")
        figure("  without an answer", told_at_end["lost"], "", 1)
    finally:
        load.database.close()
        await platform.close()


if __name__ == "__main__":
    run_bench(main)
