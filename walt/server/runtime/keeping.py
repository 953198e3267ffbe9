"""What is made for one question, and kept a while for the next ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """What is kept under one key, `held` (None: nothing), and the queue of who uses it."""

    def __init__(self) -> None:
        self.queue = DeferredLock()
        self.held: _T | None = None
        self.idle: IDelayedCall | None = None  # what ends it; None: somebody uses it

    def stay(self) -> None:
        """Have it not end: somebody uses it, or ends it now."""
        if self.idle is not None and self.idle.active():
            self.idle.cancel()
        self.idle = None


class Keeping(Generic[_T]):
    """What nobody uses is kept for `idle` seconds, and the `most` that were used last.

    `end` is called with the others. `clock` gives callLater.
    """

    def __init__(
        self, clock: IReactorTime, idle: float, most: int, end: Callable[[Kept[_T]], None]
    ) -> None:
        self._clock, self._idle, self._most, self._end = clock, idle, most, end
        self._kept: dict[str, Kept[_T]] = {}  # the last used is the last one

    def all(self) -> list[Kept[_T]]:
        """Return all of them, the last used one last."""
        return list(self._kept.values())

    def get(self, key: str) -> Kept[_T] | None:
        """Return what is kept under a key."""
        return self._kept.get(key)

    def used(self, key: str) -> Kept[_T]:
        """Return what is kept under a key, made if need be: it is used now."""
        kept = self._kept.pop(key, None) or Kept[_T]()
        self._kept[key] = kept
        return kept

    def leave(self, kept: Kept[_T]) -> None:
        """Nobody uses it any more."""
        if kept.held is None:
            return
        kept.idle = self._clock.callLater(self._idle, self._over, kept)
        idle = [other for other in self._kept.values() if other.idle is not None]
        if len(idle) > self._most:
            self._over(idle[0])

    def _over(self, kept: Kept[_T]) -> None:
        kept.stay()
        self._end(kept)

    def forget(self, kept: Kept[_T]) -> None:
        """Keep it no more."""
        self._kept = {key: other for key, other in self._kept.items() if other is not kept}
