"""Time for nodes whose clock has steps of one second (spec node-protocols §4.10)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


def next_whole_second(clock: IReactorTime, now: Callable[[], float]) -> Deferred[int]:
    """Return a Deferred that fires at the next second change, with that epoch second."""
    moment = int(now()) + 1
    waiting: Deferred[int] = Deferred(lambda _: timer.cancel())
    timer = clock.callLater(max(0.0, moment - now()), waiting.callback, moment)
    return waiting
