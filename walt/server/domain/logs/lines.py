"""Lines in, in batches; lines out, stored and live."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import Invalid, Unavailable
from walt.common.records import Block
from walt.server.domain.logs.interfaces import ILogCursor, ILogStore
from walt.server.domain.logs.model import (
    KnownStream,
    LogBlock,
    LogLine,
    LogMatcher,
    LogQuery,
    StreamKey,
    StreamMode,
    all_corrected,
    storable,
)
from walt.server.domain.logs.order import placed
from walt.server.domain.shares import (
    ALL_LOG_READERS,
    ALL_WEB_READERS,
    MAX_LOG_READERS,
    MAX_WEB_READERS,
    Shares,
)
from walt.server.runtime.coroutines import spawn, unbroken

_log = Logger()

BATCH = 512  # lines; when so many are pending, they are stored at once
FLUSH_AFTER = 0.3  # seconds
PAUSE = 1.0  # seconds until lines that could not be stored are tried again
LARGEST_INSERT = 10_000  # lines
MAX_PENDING = 50_000  # lines; above, senders are asked to wait
MAX_PENDING_SIZE = 16 << 20  # characters, the same
# What one issuer may have pending, whatever the others do: half of all, or, while there is
# too much already, so little that waiting for it is not noticed.
LARGEST_SHARE = 0.5
SMALLEST_SHARE = 0.01

Subscriber = Callable[[list[LogLine], int], object]
_NONE: Mapping[str, KnownStream] = MappingProxyType({})


class _Share:
    """What one issuer has pending: lines and characters."""

    lines = size = 0


class _Streams:
    """The streams that the store is known to have, by issuer: one is forgotten with all of its."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, KnownStream]] = {}

    def get(self, key: StreamKey) -> KnownStream | None:
        return self._of.get(key.issuer, _NONE).get(key.name)

    def put(self, key: StreamKey, stream: KnownStream) -> None:
        # Thousands of issuers have streams of the same names.
        self._of.setdefault(key.issuer, {})[sys.intern(key.name)] = stream

    def forget(self, issuer: str) -> None:
        self._of.pop(issuer, None)


@implementer(ILogCursor)
class _Cursor:
    """A cursor of the store, and what to call when it is closed."""

    def __init__(self, cursor: ILogCursor, closed: Callable[[], object]) -> None:
        self._cursor = cursor
        self._closed: Callable[[], object] | None = closed

    async def next_block(self) -> Block:
        """Return the next lines, empty at the end."""
        block: Block = await self._cursor.next_block()
        return block

    async def close(self) -> None:
        """Free the cursor; safe to call twice."""
        closed, self._closed = self._closed, None
        try:
            await self._cursor.close()
        finally:
            if closed is not None:
                closed()


class LogService:
    """The one place where lines enter and leave.

    `now` gives the time of reception, in epoch seconds; `on_forget` is called when a device
    was forgotten: its lines are to be deleted. Senders are asked to wait while `most_pending`
    lines are not stored.
    """

    def __init__(
        self, store: ILogStore, clock: IReactorTime, now: Callable[[], float],
        on_forget: Callable[[], None] = lambda: None, most_pending: int = MAX_PENDING,
    ) -> None:
        self.most_pending = most_pending
        self._store = store
        self._clock = clock
        self.now = now
        self._on_forget = on_forget
        self.former: set[str] = set()  # names of forgotten devices whose lines were kept
        self._pending: deque[LogBlock] = deque()
        self._pending_lines = self._pending_size = 0
        self._streams = _Streams()
        self._subscribers: dict[Subscriber, LogMatcher] = {}
        self._watched: dict[str, Callable[[str, str], object]] = {}
        self._timer: Any = None
        self.accepted = 0  # number of the last line accepted
        self._batch = 0  # number of the last batch stored
        self._current: list[LogBlock] = []  # the batch being stored, or sent again
        self._alone = 0  # how many of the next blocks are stored one by one
        self._storing = DeferredLock()
        self._flushing = False
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()
        self._drained: list[tuple[str, Deferred[None]]] = []
        self._shares: dict[str, _Share] = {}
        self._readers = Shares(MAX_LOG_READERS, "readers of stored logs", ALL_LOG_READERS)
        self._web_readers = Shares(
            MAX_WEB_READERS, "log queries of the web API", ALL_WEB_READERS
        )

    async def start(self) -> None:
        """Learn whose lines were kept; to be done once, first."""
        self.former.update(await self._store.former_issuers())

    # -- in --------------------------------------------------------------

    def write(
        self, issuer: str, stream: str, line: str, *, timestamp: float | None = None,
        mode: StreamMode = "line",
    ) -> None:
        """Accept one line of the device with MAC `issuer`; it is stored a little later.

        Newlines in it make several lines.
        """
        stamps = None if timestamp is None else [timestamp] * (line.count("\n") + 1)
        self.write_lines(issuer, stream, line, stamps=stamps, mode=mode)

    def write_lines(
        self, issuer: str, stream: str, text: str, *, stamps: Sequence[float] | None = None,
        mode: StreamMode = "line",
    ) -> None:
        """Accept lines separated by newlines, with their own times or the time of reception.

        Nothing is done line by line, unless somebody reads live lines.
        """
        now, text = self.now(), storable(text)
        if stamps is not None:
            stamps = all_corrected(stamps, now)
        block = LogBlock(StreamKey(issuer, stream), mode, now, stamps, text, text.count("\n") + 1)
        self._pending.append(block)
        self._count(block, 1)
        self.accepted += block.line_count
        if self._subscribers:
            self._publish(block)
        if stream in self._watched:
            self._watched[stream](issuer, text)
        if self._pending_lines >= BATCH:
            self._flush_soon(0)
        elif self._timer is None:
            self._flush_soon(FLUSH_AFTER)

    def watch(self, stream: str, watcher: Callable[[str, str], object]) -> None:
        """Call `watcher(issuer, text)` with all that comes in streams of one name."""
        self._watched[stream] = watcher

    def _publish(self, block: LogBlock) -> None:
        issuer, stream = block.key
        readers = [
            (subscriber, matcher) for subscriber, matcher in self._subscribers.items()
            if matcher.wants(issuer, stream)
        ]
        if not readers:
            return
        times = block.stamps if block.stamps is not None else repeat(block.moment)
        records = [
            LogLine(stamp, issuer, stream, line)
            for stamp, line in zip(times, block.text.split("\n"), strict=False)
        ]
        for subscriber, matcher in readers:
            wanted = [record for record in records if matcher.found_in(record.line)]
            if wanted:
                subscriber(wanted, self.accepted)

    def _count(self, block: LogBlock, sign: int) -> None:
        """Keep account of a block that came or was stored."""
        lines, size = sign * block.line_count, sign * len(block.text)
        self._pending_lines += lines
        self._pending_size += size
        share = self._shares.setdefault(block.key.issuer, _Share())
        share.lines += lines
        share.size += size
        if not share.lines:
            del self._shares[block.key.issuer]

    def must_wait(self, issuer: str) -> bool:
        """Whether a sender should wait (`welcome`) before giving more lines of a device.

        One that floods waits for its own lines; one that sends little hardly ever waits.
        """
        share = self._shares.get(issuer)
        if share is None:
            return False
        full = (
            self._pending_lines >= self.most_pending or self._pending_size >= MAX_PENDING_SIZE
        )
        part = SMALLEST_SHARE if full else LARGEST_SHARE
        return share.lines >= part * self.most_pending or share.size >= part * MAX_PENDING_SIZE

    def welcome(self, issuer: str) -> Deferred[None]:
        """Return a Deferred that fires when lines of a device are welcome again."""
        waiting: Deferred[None] = Deferred()
        if self.must_wait(issuer):
            self._drained.append((issuer, waiting))
        else:
            waiting.callback(None)
        return waiting

    def forget(self, issuer: str, kept_as: str | None = None) -> None:
        """Drop what is remembered of a device's streams (it was forgotten).

        `kept_as` is the name under which its lines were kept, if they were.
        """
        if kept_as is not None:
            self.former.add(kept_as)
        self._streams.forget(issuer)
        self._on_forget()

    @unbroken
    async def forget_former(self, name: str) -> None:
        """Delete the lines that were kept of forgotten devices of this name."""
        await self._store.forget_former(name)
        self.former.discard(name)
        self._on_forget()

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
                    await self._pause(PAUSE)
                except Exception:
                    # Whatever it is, it is no reason to lose lines.
                    _log.failure("log lines wait, they cannot be stored")
                    await self._pause(PAUSE)
                else:
                    self._tell_waiters()
        finally:
            self._flushing = False

    def _tell_waiters(self) -> None:
        stored = self.accepted - self._pending_lines
        while self._waiting and self._waiting[0][0] <= stored:
            self._waiting.popleft()[1].callback(None)
        waiting, self._drained = self._drained, []
        for issuer, waiter in waiting:
            if self.must_wait(issuer):
                self._drained.append((issuer, waiter))
            else:
                waiter.callback(None)

    async def _store_oldest(self) -> None:
        # What is sent again after a lost connection must be the same, under the same number.
        if not self._current:
            self._current = self._oldest()
        try:
            await self._store_batch(self._current)
        except Invalid:
            if len(self._current) > 1:
                # One block that the store refuses must not take the others with it.
                self._alone, self._current = len(self._current), []
                return
            _log.failure("{count} log lines are lost", count=self._current[0].line_count)
        for block in self._current:
            self._pending.popleft()
            self._count(block, -1)
        self._current = []

    def _oldest(self) -> list[LogBlock]:
        if self._alone:
            self._alone -= 1
            return [self._pending[0]]
        batch: list[LogBlock] = []
        lines = 0
        for block in self._pending:
            batch.append(block)
            lines += block.line_count
            if lines >= LARGEST_INSERT:
                break
        return batch

    async def _store_batch(self, batch: list[LogBlock]) -> None:
        missing = {
            block.key: block.mode for block in batch if self._streams.get(block.key) is None
        }
        if missing:
            for key, known in (await self._store.ensure_streams(missing)).items():
                self._streams.put(key, known)
        blocks: list[tuple[int, LogBlock]] = []
        lasts: dict[StreamKey, float] = {}
        for block in batch:
            stream = self._streams.get(block.key)
            if stream is not None:
                in_place, lasts[block.key] = placed(
                    block, lasts.get(block.key, stream.last)
                )
                blocks.append((stream.number, in_place))
        if not blocks:
            return
        number = self._batch + 1
        await self._store.insert(number, blocks)
        for key, last in lasts.items():
            stream = self._streams.get(key)
            if stream is not None:  # it was not forgotten meanwhile
                self._streams.put(key, stream._replace(last=last))
        self._batch = number

    def _pause(self, seconds: float) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._clock.callLater(seconds, waiting.callback, None)
        return waiting

    def stored(self) -> Deferred[None]:
        """Store every line accepted so far; fires when they are in the database."""
        waiting: Deferred[None] = Deferred()
        if not self._pending:
            waiting.callback(None)
            return waiting
        self._waiting.append((self.accepted, waiting))
        if self._timer is not None:
            self._timer.cancel()
        self._tick()
        return waiting

    async def flush(self) -> None:
        """Store every line accepted so far (before a query, at stop)."""
        await self.stored()

    # -- out -------------------------------------------------------------

    async def count(self, query: LogQuery, reader: str) -> int:
        """Return how many stored lines match, for a user. Raises LimitExceeded."""
        self._readers.enter(reader)
        try:
            await self.flush()
            return int(await self._store.count(replace(query, reader=reader)))
        finally:
            self._readers.leave(reader)

    async def open(self, query: LogQuery, reader: str, *, web: bool = False) -> tuple[Any, int]:
        """Return an ILogCursor over stored lines, and the number of the last one it may hold.

        Lines with a higher `accepted` number are not in the cursor: they are live ones.
        A cursor has a connection to the database until it is closed: each user (or, with
        `web`, each address that reads pages) may have few, and the readers of pages take
        none from users. Raises LimitExceeded.
        """
        shares = self._web_readers if web else self._readers
        shares.enter(reader)
        try:
            await self.flush()
            cursor, last = await self._opened(
                replace(query, reader="the web API" if web else reader)
            )
        except BaseException:
            shares.leave(reader)
            raise
        return _Cursor(cursor, partial(shares.leave, reader)), last

    async def _opened(self, query: LogQuery) -> tuple[Any, int]:
        """Return a cursor, and the number of its last line. Storing goes on while it searches."""
        last: list[int] = []

        def settled() -> None:
            if not last:
                last.append(self.accepted - self._pending_lines)
                self._storing.release()

        await self._storing.acquire()
        try:
            cursor = await self._store.open(query, settled)
        finally:
            settled()
        return cursor, last[0]

    def subscribe(self, query: LogQuery, subscriber: Subscriber) -> None:
        """Call `subscriber` with the live lines that match, as they come, by groups.

        It gets the number of the last line accepted, too: see `open`.
        """
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

    def deed(self, topic: str, subject: str, deed: str, user: str) -> None:
        """Log who did what to a device (`node vnode1`); what the server does itself is no deed."""
        if user:
            self.write(topic, f"{subject}: {deed} by {user}")
