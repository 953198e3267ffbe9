"""Run one crowd: python -m tests.crowd [--seed N] [--minutes N] [--people N] [--log FILE]"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from tests.crowd.crowd import Crowd, keep_log
from tests.system.live import LivePlatform


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """Run the crowd; end with status 1 when something is not as it must be."""
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}, {options.minutes:g} minutes, {options.people} people", flush=True)
    platform = LivePlatform(reactor, net=options.net)
    try:
        await platform.import_image()
        await platform.start()
        crowd = Crowd(platform, seed, options.people)
        await crowd.work(60 * options.minutes)
        await crowd.look()
        print(crowd.table())
        print("\n".join(crowd.faults) or "all is well")
        status = await platform.stop()
        left = platform.left_overs()
        if status or left:
            print(f"the server ended with {status}, and left {left}")
    finally:
        if options.log is not None:
            keep_log(platform, options.log)
        await platform.close()
    if crowd.faults or status or left:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.crowd")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--people", type=int, default=3, choices=range(1, 6))
    parser.add_argument("--net", default="192.168.171")
    parser.add_argument("--log", type=Path)
    chosen = parser.parse_args()
    react(lambda reactor: main(reactor, chosen))
