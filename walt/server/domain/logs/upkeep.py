"""Upkeep of stored logs beside their ingestion, which it never holds up."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.errors import Busy, Unavailable
from walt.server.domain.logs.interfaces import ILogStore
from walt.server.runtime.coroutines import spawn

_log = Logger()

EVERY = 6 * 3600.0  # seconds from one look at the partitions to the next one
RETRY_AFTER = 60.0  # seconds, when the tables were busy
AT_ONCE = 2000  # lines deleted in one go: some 15 ms
SHORTEST_PAUSE = 0.05  # seconds between two goes


class LogUpkeep:
    """Makes partitions, drops old ones, deletes the lines of forgotten devices.

    `retention` is in days, None to keep everything.
    """

    def __init__(self, store: ILogStore, clock: IReactorTime, retention: int | None) -> None:
        self._store = store
        self._clock = clock
        self._retention = retention
        self._timer: Any = None
        self._removing: Deferred[Any] | None = None
        self._again = False

    async def start(self) -> None:
        """Look at the partitions, and again every few hours; go on with removals."""
        delay = EVERY
        try:
            await self._store.make_partitions()
            if self._retention is not None:
                await self._store.drop_older_than(self._retention)
        except (Busy, Unavailable) as error:
            _log.warn("upkeep of the logs: {error}", error=error)
            delay = RETRY_AFTER
        self._timer = self._clock.callLater(
            delay, lambda: spawn(self.start(), "upkeep of the logs")
        )
        self.remove_soon()

    def stop(self) -> None:
        """Leave the rest for the next start."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        removing, self._removing = self._removing, None
        self._again = False
        if removing is not None:
            removing.cancel()

    def remove_soon(self) -> None:
        """Delete the lines of forgotten devices, in the background."""
        if self._removing is not None:
            self._again = True
            return
        self._removing = Deferred.fromCoroutine(self._remove())
        self._removing.addErrback(_told).addCallback(self._removed)

    def _removed(self, result: Any) -> None:
        self._removing = None
        if self._again:
            self._again = False
            self.remove_soon()

    async def _remove(self) -> None:
        """As many pauses as work: whoever stores lines meanwhile has the database, too."""
        more = True
        while more:
            started = self._clock.seconds()
            try:
                more = await self._store.remove_forgotten(AT_ONCE)
            except Unavailable as error:
                _log.warn("lines of forgotten devices: {error}", error=error)
            pause: Deferred[None] = deferLater(
                self._clock, max(SHORTEST_PAUSE, self._clock.seconds() - started)
            )
            await pause


def _told(failure: Failure) -> None:
    if not failure.check(CancelledError):  # `stop`
        _log.failure("removing the lines of forgotten devices", failure)
