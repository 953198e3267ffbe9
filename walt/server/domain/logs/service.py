"""Lines in, in batches; lines out, stored and live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from walt.common.errors import Unavailable
from walt.server.domain.logs.model import (
    LogLine,
    LogMatcher,
    LogQuery,
    StreamKey,
    StreamMode,
    corrected,
)
from walt.server.domain.logs.ports import ILogStore
from walt.server.runtime.ordered import spawn

_log = Logger()

BATCH = 512
FLUSH_AFTER = 0.3  # seconds
LARGEST_INSERT = 5000
MAX_PENDING = 20_000  # lines; above, senders are asked to wait

Subscriber = Callable[[LogLine], None]


class LogService:
    """The one place where lines enter and leave.

    `clock` gives the time of reception, in epoch seconds.
    """

    def __init__(self, store: ILogStore, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self.now = now
        self._pending: list[tuple[StreamKey, StreamMode, float, str]] = []
        self._ids: dict[StreamKey, int] = {}
        self._subscribers: dict[Subscriber, LogMatcher] = {}
        self._timer: Any = None
        self.accepted = 0  # number of the last line accepted
        self._storing = DeferredLock()
        self._flushing = False
        self._flushed: list[Deferred[None]] = []
        self._drained: list[Deferred[None]] = []

    # -- in --------------------------------------------------------------

    def write(
        self, issuer: str, stream: str, line: str, *, timestamp: float | None = None,
        mode: StreamMode = "line",
    ) -> None:
        """Accept one line of the device with MAC `issuer`; it is stored a little later."""
        now = self.now()
        moment = now if timestamp is None else corrected(timestamp, now)
        self.accepted += 1
        self._pending.append((StreamKey(issuer, stream), mode, moment, line))
        if self._subscribers:
            record = LogLine(moment, issuer, stream, line)
            for subscriber, matcher in list(self._subscribers.items()):
                if matcher.matches(record):
                    subscriber(record)
        if len(self._pending) >= BATCH:
            self._flush_soon(0)
        elif self._timer is None:
            self._flush_soon(FLUSH_AFTER)

    @property
    def congested(self) -> bool:
        """Whether senders should wait (`drained`) before giving more lines."""
        return len(self._pending) >= MAX_PENDING

    def drained(self) -> Deferred[None]:
        """Return a Deferred that fires when lines are welcome again."""
        waiting: Deferred[None] = Deferred()
        if self.congested:
            self._drained.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def forget(self, issuer: str) -> None:
        """Drop what is remembered of a device's streams (it was forgotten)."""
        self._ids = {key: one for key, one in self._ids.items() if key.issuer != issuer}

    def _flush_soon(self, delay: float) -> None:
        if self._timer is not None:
            if delay or self._timer.getTime() <= self._clock.seconds():
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._flushing:
            self._flushing = True
            spawn(self._flush(), "storing log lines")

    async def _flush(self) -> None:
        try:
            while self._pending:
                try:
                    async with self._storing:
                        await self._store_oldest()
                except Unavailable as error:
                    _log.warn("log lines wait for the database: {error}", error=error)
                    await self._pause(1.0)
                    continue
                if not self.congested:
                    waiting, self._drained = self._drained, []
                    for one in waiting:
                        one.callback(None)
        finally:
            self._flushing = False
            flushed, self._flushed = self._flushed, []
            for one in flushed:
                one.callback(None)

    async def _store_oldest(self) -> None:
        batch = self._pending[:LARGEST_INSERT]
        try:
            await self._store_batch(batch)
        except Unavailable:
            raise
        except Exception:
            _log.failure("{count} log lines cannot be stored", count=len(batch))
        del self._pending[:len(batch)]

    async def _store_batch(
        self, batch: list[tuple[StreamKey, StreamMode, float, str]]
    ) -> None:
        missing = {key: mode for key, mode, _, _ in batch if key not in self._ids}
        if missing:
            self._ids.update(await self._store.ensure_streams(missing))
        known = [
            (self._ids[key], moment, line)
            for key, _, moment, line in batch if key in self._ids
        ]
        if known:
            ids, moments, lines = zip(*known, strict=True)
            await self._store.insert(ids, moments, lines)

    def _pause(self, seconds: float) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._clock.callLater(seconds, waiting.callback, None)
        return waiting

    async def flush(self) -> None:
        """Store every line accepted so far (before a query, at stop)."""
        while self._pending:
            if self._timer is not None:
                self._timer.cancel()
            flushed: Deferred[None] = Deferred()
            self._flushed.append(flushed)
            self._tick()
            await flushed

    # -- out -------------------------------------------------------------

    async def count(self, query: LogQuery) -> int:
        """Return how many stored lines match."""
        await self.flush()
        return int(await self._store.count(query))

    async def open(self, query: LogQuery) -> tuple[Any, int]:
        """Return an ILogCursor over stored lines, and the number of the last one it may hold.

        Lines with a higher `accepted` number are not in the cursor: they are live ones.
        """
        await self.flush()
        async with self._storing:
            cursor = await self._store.open(query)
            return cursor, self.accepted - len(self._pending)

    def subscribe(self, query: LogQuery, subscriber: Subscriber) -> None:
        """Call `subscriber` with each live line that matches."""
        self._subscribers[subscriber] = query.matcher()

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Stop calling a subscriber."""
        self._subscribers.pop(subscriber, None)


class PlatformLog:
    """The platform's own lines: streams `platform.<topic>` of the server."""

    def __init__(self, logs: LogService, server_mac: Callable[[], str | None]) -> None:
        self._logs = logs
        self._server_mac = server_mac

    def write(self, topic: str, line: str, *, error: bool = False) -> None:
        """Log a line on `platform.<topic>`, and in the daemon's own log."""
        if error:
            _log.error("{topic}: {line}", topic=topic, line=line)
        else:
            _log.info("{topic}: {line}", topic=topic, line=line)
        mac = self._server_mac()
        if mac is not None:
            self._logs.write(mac, f"platform.{topic}", line)
