"""Work on thousands of things, some in each turn of the reactor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

_T = TypeVar("_T")

AT_ONCE = 32  # things whose change is logged, or takes about as long


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
    """Take `at_once` steps of work, which is done by iterating, in each turn until none is left."""
    left = iter(steps)
    while sum(1 for _ in islice(left, at_once)) == at_once:
        await deferLater(clock, 0)
