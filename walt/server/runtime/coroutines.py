"""Coroutines that go on without anybody who waits for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import wraps
from itertools import count
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.errors import Unavailable, WaltError

_log = Logger()

TRY_EVERY = 2.0  # seconds
TOLD_EVERY = 30  # tries

P = ParamSpec("P")
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


async def insist(
    clock: IReactorTime, action: Callable[[], Awaitable[None]], what: str
) -> None:
    """Do something that may be done again, until the database, or what else it needs, is there.

    That it waits is logged after each TOLD_EVERY tries.
    """
    for tries in count(1):
        try:
            await action()
            return
        except Unavailable as error:
            if tries % TOLD_EVERY == 0:
                _log.error("{what} waits: {reason}", what=what, reason=str(error))
            await deferLater(clock, TRY_EVERY)


def shielded(running: Deferred[T]) -> Deferred[T]:
    """Return a Deferred that follows `running` but, cancelled, lets it go on.

    A later failure of work that nobody waits for any more is logged.
    """
    follower: Deferred[T] = Deferred()

    def succeeded(result: T) -> None:
        if not follower.called:
            follower.callback(result)

    def failed(failure: Failure) -> None:
        if not follower.called:
            follower.errback(failure)
        elif failure.check(WaltError):
            _log.error(
                "work went on without its requester and failed: {reason}",
                reason=str(failure.value),
            )
        else:
            _log.failure("work went on without its requester and failed", failure)

    running.addCallbacks(succeeded, failed)
    return follower


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Do several things at the same time; if one fails, with its error, give up the others."""
    running = [Deferred.fromCoroutine(work) for work in works]
    try:
        await gatherResults(running, consumeErrors=True)
    except FirstError as first:
        for other in running:
            other.cancel()
        first.subFailure.raiseException()


def unbroken(
    work: Callable[P, Coroutine[Any, Any, T]]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Have a coroutine function done as a whole, once it began.

    Who waits for it may be cancelled, as the calls of a client that leaves are: that comes when
    the work is over, so that what they hold is held until then. For what changes something in
    several steps, or tells of it afterwards; what may take long, or wants to be given up, comes
    before.
    """
    @wraps(work)
    async def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        running = Deferred.fromCoroutine(work(*args, **kwargs))
        try:
            return await shielded(running)
        except CancelledError:
            while not running.called:
                with suppress(CancelledError):
                    await shielded(running)
            raise

    return whole
