"""How long the turns of the reactor are, in CPU time of its thread.

A turn runs what is due and what arrived; while it lasts nothing else is
answered. CPU time, because waiting for input costs nobody anything and a busy
machine must not look like slow code. It is watched where the environment
variable `WALT_TURNS` names a file (tests and benches).
"""

from __future__ import annotations

import atexit
import gc
import json
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.base import ReactorBase

from walt.common.files import write_atomic

VARIABLE = "WALT_TURNS"
LIMIT = 0.1  # seconds; no turn may be longer (a rule of this project)
NOTED = 0.04  # seconds; a turn of which the file tells what it did
DEEPEST = 60  # frames of a stack that are kept


class TurnMonitor:
    """Measure each turn of `reactor` from `start` on.

    `on_long` is called, between two turns, with the CPU seconds of a turn above
    `limit` and with the stack that was running when it passed the limit. `collected` has
    the seconds that Python's collector took of the turn.
    """

    def __init__(
        self, reactor: ReactorBase, on_long: Callable[[float, str], None], limit: float = LIMIT
    ) -> None:
        self._reactor = reactor
        self._run_until_current: Callable[[], None] | None = None
        self._on_long = on_long
        self._limit = limit
        self._stack = ""
        self._last = 0.0
        self._old_handler: Any = None
        self._look = 0.0
        self.collected = 0.0
        self.turns = 0
        self.longest = 0.0

    def start(self) -> None:
        """Measure from the next turn on. To be called in the main thread."""
        self._old_handler = signal.signal(signal.SIGPROF, self._sample)
        self._run_until_current = self._reactor.runUntilCurrent
        self._reactor.runUntilCurrent = self._turn  # type: ignore[method-assign]
        # The interpreter forgets handlers before it ends: the signal would kill it.
        atexit.register(signal.setitimer, signal.ITIMER_PROF, 0)
        gc.callbacks.append(self._collects)
        self._begin()

    def stop(self) -> None:
        """Measure no more."""
        gc.callbacks.remove(self._collects)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._old_handler)
        assert self._run_until_current is not None
        self._reactor.runUntilCurrent = self._run_until_current  # type: ignore[method-assign]

    def restart_turn(self) -> None:
        """Forget what the present turn cost so far."""
        self._begin()

    def forgive(self, seconds: float) -> None:
        """Do not count CPU seconds of the present turn that are not the server's."""
        self._last += seconds

    def _collects(self, phase: str, told: Mapping[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._look = now
        else:
            self.collected += now - self._look

    def _begin(self) -> None:
        self._stack = ""
        self.collected = 0.0
        signal.setitimer(signal.ITIMER_PROF, self._limit)
        self._last = time.thread_time()

    def _sample(self, number: int, frame: Any) -> None:
        self._stack = "".join(traceback.format_stack(frame)[-DEEPEST:])

    def _turn(self) -> None:
        spent = time.thread_time() - self._last
        stack = self._stack
        self.turns += 1
        self.longest = max(self.longest, spent)
        if spent > self._limit:
            self._on_long(spent, stack)
        self._begin()
        assert self._run_until_current is not None
        self._run_until_current()


def record_turns(reactor: ReactorBase, path: Path) -> TurnMonitor:
    """Keep the longest turns in a JSON file: `{"turns", "longest", "long": [[s, stack]…]}`.

    Times are CPU seconds. The file is written once a second. Of the turns above NOTED the first
    50 are told, each with a last line on the collector.
    """
    long: list[tuple[float, str]] = []

    def note(spent: float, stack: str) -> None:
        long.append((spent, f"{stack}  of it the collector: {monitor.collected * 1000:.0f} ms"))

    monitor = TurnMonitor(reactor, note, NOTED)

    def write() -> None:
        write_atomic(path, json.dumps(
            {"turns": monitor.turns, "longest": monitor.longest, "long": long[:50]}
        ))
        reactor.callLater(1.0, write)

    reactor.callLater(0, write)
    monitor.start()
    return monitor
