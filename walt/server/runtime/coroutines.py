"""Coroutines that go on without anybody who waits for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.errors import Unavailable, WaltError

_log = Logger()

MOST_TRIES, TRY_EVERY = 30, 2.0  # seconds

T = TypeVar("T")


def spawn(coroutine: Coroutine[Any, Any, Any], what: str) -> Deferred[Any]:
    """Run a coroutine whose result nobody waits for; its failure is logged."""
    running: Deferred[Any] = Deferred.fromCoroutine(coroutine)

    def failed(failure: Failure) -> None:
        if failure.check(WaltError):  # what can happen, and is told in words
            _log.error("{what} failed: {reason}", what=what, reason=str(failure.value))
        else:
            _log.failure("{what} failed", failure, what=what)

    running.addErrback(failed)
    return running


async def insist(clock: IReactorTime, action: Callable[[], Awaitable[None]]) -> None:
    """Do something that may be done again until the database, or what else it needs, is there.

    Raises Unavailable after MOST_TRIES.
    """
    for _ in range(MOST_TRIES - 1):
        try:
            await action()
        except Unavailable:
            await deferLater(clock, TRY_EVERY)
        else:
            return
    await action()


def shielded(running: Deferred[T]) -> Deferred[T]:
    """Return a Deferred that follows `running` but, cancelled, lets it go on.

    A later failure of work that nobody waits for any more is logged.
    """
    follower: Deferred[T] = Deferred()

    def succeeded(result: T) -> None:
        if not follower.called:
            follower.callback(result)

    def failed(failure: Failure) -> None:
        if follower.called:
            _log.failure("work went on without its requester and failed", failure)
        else:
            follower.errback(failure)

    running.addCallbacks(succeeded, failed)
    return follower
