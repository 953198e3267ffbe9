"""Coroutines that go on without anybody who waits for them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

T = TypeVar("T")


def spawn(coroutine: Coroutine[Any, Any, Any], what: str) -> Deferred[Any]:
    """Run a coroutine whose result nobody waits for; its failure is logged."""
    running: Deferred[Any] = Deferred.fromCoroutine(coroutine)
    running.addErrback(lambda failure: _log.failure("{what} failed", failure, what=what))
    return running


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
