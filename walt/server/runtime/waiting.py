"""Those who wait for the same thing, and are told together."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

_T = TypeVar("_T")


class Waiters(Generic[_T]):
    """Deferreds that fire together. Who stops waiting is passed over."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[_T]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def wait(self) -> Deferred[_T]:
        """Return a Deferred that fires at the next release."""
        waiting: Deferred[_T] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def taken(self) -> Waiters[_T]:
        """Return those who wait now, apart from those who come later."""
        taken = Waiters[_T]()
        taken._waiting, self._waiting = self._waiting, []
        return taken

    def release(self, result: _T) -> None:
        """Tell all; who waits again meanwhile waits for the next release."""
        for waiting in self.taken()._waiting:
            if not waiting.called:
                waiting.callback(result)

    def fail(self, error: BaseException) -> None:
        """Tell all that it failed."""
        for waiting in self.taken()._waiting:
            if not waiting.called:
                waiting.errback(error)
