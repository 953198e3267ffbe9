"""Run with `python -m bench.boot.lab`, as root: a board of the lab, by the server and by hand.

The box (docs/developer.md, "Tests") is the same one, the image, its mount and its export by the
kernel are the same, too; by hand is what bench/boot/by_hand.py says.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.lab.box import Box
from tests.lab.installed import installed, why_not
from tests.lab.test_install import booted
from tests.system.load import figure, run_bench

TARGET = 1.15
LONGEST = 600.0  # seconds of a boot
PROGRAM = Path(__file__).with_name("by_hand.py")


class Helper:
    """The program in the box, by its lines."""

    def __init__(self, box: Box, what: str) -> None:
        self._waiting: list[tuple[str, Deferred[float]]] = []
        self._reactor = box.reactor
        self.over: Deferred[Any] = Deferred.fromCoroutine(box.try_to(
            f"/opt/walt/bin/python -u /root/{PROGRAM.name} {what}", timeout=3600, on_line=self._line
        ))
        self.over.addErrback(lambda failure: None)

    def _line(self, line: str) -> None:
        waiting = [one for one in self._waiting if one[0] == line.strip()]
        self._waiting = [one for one in self._waiting if one not in waiting]
        for _, said in waiting:
            said.callback(self._reactor.seconds())

    def says(self, line: str) -> Deferred[float]:
        """Fire with the time when it says a line."""
        said: Deferred[float] = Deferred()
        self._waiting.append((line, said))
        return said.addTimeout(LONGEST, self._reactor)


async def boots(box: Box, watcher: Helper, rounds: int) -> list[float]:
    """Return the seconds from power to the notification of a board, boot by boot."""
    taken = []
    (board,) = box.boards
    for _ in range(rounds):
        said = watcher.says("booted")
        start = box.reactor.seconds()
        board.boot()
        taken.append(await said - start)
        await box.sleep(2)
        await board.cut()
        await box.sleep(5)
    return taken


async def main(reactor: Any, rounds: int) -> None:
    """Print the figures."""
    missing = why_not()
    if missing is not None:
        print(f"skipped: {missing}")
        return
    print(f"load average {os.getloadavg()[0]:.1f}")
    box = await installed(reactor)
    try:
        await box.start()
        await box.until_active()
        await box.put(f"/root/{PROGRAM.name}", PROGRAM.read_bytes())
        board = box.board()
        board.boot()
        await booted(box, board.mac)  # the first boot of a board is that of an unknown one
        await board.cut()
        watcher = Helper(box, "watch")
        await watcher.says("watching")
        by_server = await boots(box, watcher, rounds)
        await Helper(box, "serve").says("serving")
        await box.sleep(5)
        by_hand = await boots(box, watcher, rounds)
    finally:
        await box.close()
    print(f"through the server: {[round(one, 1) for one in by_server]}")
    print(f"by hand: {[round(one, 1) for one in by_hand]}")
    server, hand = statistics.median(by_server), statistics.median(by_hand)
    figure("power-on to booted, by hand", hand, "s")
    figure("power-on to booted, through the server", server, "s")
    figure("  ratio", server / hand, "times", TARGET)
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.boot.lab")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    run_bench(lambda reactor: main(reactor, chosen.rounds))
