"""Work on thousands of things, some in each turn of the reactor."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

_T = TypeVar("_T")

AT_ONCE = 32  # things whose change is logged, or takes about as long
TURN = 0.005  # seconds of work after which others have their turn, be it on a slow machine


async def slices(
    clock: IReactorTime, things: Sequence[_T], at_once: int = AT_ONCE
) -> AsyncIterator[Sequence[_T]]:
    """Yield the first `at_once` of some things, the next ones in the next turn, and so on."""
    for start in range(0, len(things), at_once):
        if start:
            await deferLater(clock, 0)
        yield things[start:start + at_once]


async def worked_off(
    clock: IReactorTime, steps: Iterable[object], at_once: int = AT_ONCE
) -> None:
    """Take steps of work, which is done by iterating, until none is left.

    In each turn at most `at_once` are taken, and none after TURN by the `clock`.
    """
    taken, end = 0, clock.seconds() + TURN
    for _ in steps:
        taken += 1
        if taken == at_once or clock.seconds() > end:
            await deferLater(clock, 0)
            taken, end = 0, clock.seconds() + TURN


class Turnstile:
    """Lets many that were told something at once go on, some in each turn of the reactor.

    `clock` gives seconds and callLater. In each turn those go on, in their order, who begin
    within TURN.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[Deferred[None]] = deque()
        self._planned = False

    def passed(self) -> Deferred[None]:
        """Return a Deferred that fires when it is the caller's turn, not at once."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if not self._planned:
            self._plan()
        return waiting

    def _plan(self) -> None:
        self._planned = bool(self._waiting)
        if self._planned:
            self._clock.callLater(0, self._some)

    def _some(self) -> None:
        end = self._clock.seconds() + TURN
        # Who comes meanwhile waits for the next turn.
        for _ in range(len(self._waiting)):
            self._waiting.popleft().callback(None)
            if self._clock.seconds() > end:
                break
        self._plan()
