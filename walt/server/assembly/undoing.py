"""What a stop of the server undoes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger()

UNDO_LIMIT = 60.0  # seconds that stopping one thing may take

Undo = Callable[[], Any]


class Undos:
    """What stops the things that were started, in the order of their start.

    `keep_nodes` tells that the nodes are kept for the next server.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._planned: list[tuple[str, Undo, bool]] = []
        self.keep_nodes = False

    def plan(self, what: str, undo: Undo, *, for_good: bool = False) -> None:
        """Plan what stops something; `for_good`: not when nodes are kept for the next server."""
        self._planned.append((what, undo, for_good))

    async def undo_all(self) -> None:
        """Stop all that was started, the last first; each failure is logged."""
        while self._planned:
            what, undo, for_good = self._planned.pop()
            if for_good and self.keep_nodes:
                continue
            try:
                await self._limited(undo())
            except TimeoutError:
                _log.error(
                    "stopping {what} took more than {limit} s: going on without it",
                    what=what, limit=UNDO_LIMIT,
                )
            except Exception:
                _log.failure("stopping {what}", what=what)

    async def _limited(self, result: Deferred[Any] | Coroutine[Any, Any, Any] | None) -> None:
        """Wait for what an undo returned, not for ever: a stop always ends."""
        if result is None:
            return
        waiting = result if isinstance(result, Deferred) else Deferred.fromCoroutine(result)
        await waiting.addTimeout(UNDO_LIMIT, self._clock)
