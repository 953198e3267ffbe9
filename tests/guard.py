"""Every test of the suite is also a test that the server never blocks its reactor.

Under trial, code of walt.server that runs in a turn of the reactor may not
sleep, wait for a process or connect a blocking socket, and no turn in which it
runs may take more than 100 ms of CPU time. A breach is logged as an error,
which fails the test. `WALT_TEST_GUARD=0` switches the guard off.
"""

from __future__ import annotations

import functools
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.python import log

from walt.server.runtime.turns import TurnMonitor

# Programs and jobs of their own: they have no reactor to block.
FREE = ("walt.server.workers.", "walt.server.tools.")
_reactor_running = False


class BlockingCall(AssertionError):
    """Code of the server waited inside a turn of the reactor."""


class LongTurn(AssertionError):
    """Code of the server kept the reactor for too long."""


def culprit() -> str | None:
    """Return the module of the server that makes the present call, None if it may."""
    if not _reactor_running:
        return None
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(("walt.", "tests.")):
            if name.startswith("walt.server.") and not name.startswith(FREE):
                return f"{name} line {frame.f_lineno}"
            return None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def guarded(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """Return `function`, which logs an error when the server calls it in a turn."""

    @functools.wraps(function)
    def checked(*words: Any, **options: Any) -> Any:
        where = culprit()
        if where is not None:
            log.err(BlockingCall(f"{what} in a turn of the reactor, from {where}"))
        return function(*words, **options)

    return checked


class _Socket(socket.socket):
    def connect(self, address: Any) -> None:
        if self.gettimeout() != 0 and (where := culprit()) is not None:
            log.err(BlockingCall(f"blocking connection to {address!r} from {where}"))
        super().connect(address)


def _long(spent: float, stack: str) -> None:
    # Turns in which only tests, imports or libraries work are none of our business.
    busy = stack.rpartition('File "')[2]
    if "/walt/server/" in stack and "importlib" not in stack and "/tests/" not in busy:
        log.err(LongTurn(f"a turn of {spent * 1000:.0f} ms of CPU time:\n{stack}"))


def _forgive_collections(monitor: TurnMonitor) -> None:
    """A full garbage collection goes through the heap of the whole test run: not counted."""
    begun = 0.0

    def collecting(phase: str, info: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.thread_time()
        else:
            monitor.forgive(time.thread_time() - begun)

    gc.callbacks.append(collecting)


def _forgive_forks(reactor: Any, monitor: TurnMonitor) -> None:
    """A fork copies the page tables of the whole test run: not counted."""
    spawn = reactor.spawnProcess

    def spawn_process(*words: Any, **options: Any) -> Any:
        begun = time.thread_time()
        try:
            return spawn(*words, **options)
        finally:
            monitor.forgive(time.thread_time() - begun)

    reactor.spawnProcess = spawn_process


def install(reactor: Any) -> None:
    """Watch this process from now on."""
    time.sleep = guarded(time.sleep, "time.sleep")
    subprocess.Popen.wait = guarded(  # type: ignore[method-assign]
        subprocess.Popen.wait, "waiting for a process"
    )
    subprocess.Popen.communicate = guarded(  # type: ignore[method-assign]
        subprocess.Popen.communicate, "waiting for a process"
    )
    socket.socket = _Socket  # type: ignore[misc]
    monitor = TurnMonitor(reactor, _long)
    monitor.start()
    _forgive_collections(monitor)
    _forgive_forks(reactor, monitor)
    loop = reactor.mainLoop

    def main_loop() -> None:
        global _reactor_running
        monitor.restart_turn()
        _reactor_running = True
        try:
            loop()
        finally:
            _reactor_running = False
            signal.setitimer(signal.ITIMER_PROF, 0)

    reactor.mainLoop = main_loop


def install_under_trial() -> None:
    """Watch this process if it runs tests."""
    if "twisted.scripts.trial" in sys.modules and os.environ.get("WALT_TEST_GUARD") != "0":
        from twisted.internet import reactor

        install(reactor)
