"""Services that start in a stated order and stop in the reverse one."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
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


class OrderedServices(MultiService):
    """Children stop one after the other, the last started first, each awaited.

    A child that fails to stop is logged and does not keep the others up.
    """

    def stopService(self) -> Deferred[None]:
        """Stop all children; the Deferred fires when the last one is down."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop_children())

    async def _stop_children(self) -> None:
        for child in reversed(list(self)):
            try:
                await maybeDeferred(child.stopService)
            except Exception:
                _log.failure("stopping {name}", name=child.name)
