"""Looking at something at intervals, until that is stopped."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure


class Looking:
    """Calls `look` every so many seconds, not before the former call is over.

    What is going on when it is stopped is cancelled: nothing of it is left, nothing is done
    any more.
    """

    def __init__(
        self, reactor: IReactorTime, look: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._look = look
        self._loop = LoopingCall(self._once)
        self._loop.clock = reactor
        self._present: Deferred[None] | None = None

    def start(self, every: float) -> None:
        """Look now, and then every so many seconds."""
        self._loop.start(every, now=True)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()
        if self._present is not None:
            self._present.cancel()

    def _once(self) -> Deferred[None]:
        self._present = present = Deferred.fromCoroutine(self._look())

        def over(result: Failure | None) -> Failure | None:
            self._present = None
            if isinstance(result, Failure) and result.check(CancelledError):
                return None
            return result

        return present.addBoth(over)
