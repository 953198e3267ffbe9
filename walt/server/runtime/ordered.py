"""Services that start in a stated order and stop in the reverse one."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

_log = Logger()


def spawn(coroutine: Coroutine[Any, Any, Any], what: str) -> Deferred[Any]:
    """Run a coroutine whose result nobody waits for; its failure is logged."""
    running: Deferred[Any] = Deferred.fromCoroutine(coroutine)
    running.addErrback(lambda failure: _log.failure("{what} failed", failure, what=what))
    return running


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
