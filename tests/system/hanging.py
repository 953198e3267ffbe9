"""A daemon whose process lives but does nothing, and what becomes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from walt.server.runtime.daemon import Daemon
from walt.server.runtime.watching import Patience

# For real daemons in tests that wait for what happens, not for how long it takes.
SHORT = Patience(every=1.0, limit=2.0, failures=2, settling=4.0)


async def until(condition: Callable[[], object], what: str, limit: float = 60.0) -> None:
    """Wait for a condition."""
    end = reactor.seconds() + limit
    while not condition():
        if reactor.seconds() > end:
            raise AssertionError(f"not reached: {what}")
        await deferLater(reactor, 0.05, lambda: None)


async def stop_and_come_back(daemon: Daemon[Any]) -> None:
    """Stop the process of a daemon that answers; wait until it is noticed and mended."""
    assert await daemon.watch.answered()
    pid = daemon.health.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: daemon.health.state == "not answering", "it is noticed")
    assert daemon.health.trouble == "no answer within 2 s", daemon.health
    assert daemon.health.trouble_time is not None
    await until(
        lambda: daemon.health.pid not in (pid, None) and daemon.health.state == "running",
        "another process answers",
    )
    assert daemon.health.restarts == 1, daemon.health
    # What the trouble was stays to be seen.
    assert daemon.health.trouble == "no answer within 2 s", daemon.health
