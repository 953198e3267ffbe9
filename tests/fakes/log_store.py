"""Fakes of the interfaces of the logs domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walt.common.errors import Conflict, NotFound
from walt.common.records import Block, block_of
from walt.server.domain.logs.interfaces import ICheckpoints, ILogCursor, ILogStore
from walt.server.domain.logs.model import (
    KnownStream,
    LogBlock,
    LogLine,
    LogQuery,
    StreamKey,
    StreamMode,
)
from walt.server.domain.logs.order import BEGINNING


def lines_of(key: StreamKey, block: LogBlock) -> list[LogLine]:
    """Return the lines of a block."""
    stamps = block.stamps or [block.moment] * block.line_count
    return [
        LogLine(stamp, *key, line)
        for stamp, line in zip(stamps, block.text.split("\n"), strict=True)
    ]


class FakeLines:
    """Stored lines in the order of arrival, each with its place."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, LogLine]] = []

    @property
    def lines(self) -> list[LogLine]:
        """Lines in the order of arrival."""
        return [line for _, line in self.rows]

    def add(self, key: StreamKey, block: LogBlock) -> None:
        """Store the lines of a block."""
        lines = lines_of(key, block)
        self.rows += zip(block.places or block.stamps or repeat(block.moment), lines, strict=False)

    def last(self, key: StreamKey) -> float:
        """Return the place of the last line of a stream."""
        return max((place for place, one in self.rows if one[1:3] == key), default=BEGINNING)

    def matching(self, query: LogQuery) -> list[LogLine]:
        """Return the lines of a query, by place, then arrival."""
        matcher = query.matcher()
        return [
            line for _, line in sorted(self.rows, key=lambda row: row[0])
            if matcher.matches(line)
            and (query.start is None or line.timestamp > query.start)
            and (query.end is None or line.timestamp < query.end)
        ]


@implementer(ILogStore)
class FakeLogStore(FakeLines):
    """Lines in a list.

    Streams of issuers in `unknown` are not created; `gate` holds the next
    insertion back, `errors` are raised by insertions, `opening` holds back what is opened,
    `refusal` is raised by it. Cursors give `block` lines at once; `reading` holds back each block.
    """

    def __init__(self, block: int = 2) -> None:
        super().__init__()
        self.block = block
        self.cursors: list[FakeCursor] = []
        self.reading: Deferred[None] | None = None
        self.refusal: Exception | None = None
        self.inserts: list[int] = []
        self.unknown: set[str] = set()
        self.gate: Deferred[None] | None = None
        self.opening: Deferred[None] | None = None
        self.errors: list[Exception] = []
        self.streams: dict[StreamKey, tuple[int, StreamMode]] = {}
        self.last_batch = 0
        self.removals = 0
        self.upkeep: list[str] = []
        self.upkeep_errors: list[Exception] = []

    async def ensure_streams(
        self, streams: Mapping[StreamKey, StreamMode]
    ) -> Mapping[StreamKey, KnownStream]:
        """Create missing streams."""
        for key, mode in streams.items():
            if key.issuer not in self.unknown:
                number = self.streams.get(key, (len(self.streams) + 1, mode))[0]
                self.streams[key] = (number, mode)
        return {
            key: KnownStream(self.streams[key][0], self.last(key))
            for key in streams if key in self.streams
        }

    async def insert(self, batch: int, blocks: Sequence[tuple[int, LogBlock]]) -> None:
        """Store lines."""
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate
        if self.errors:
            raise self.errors.pop(0)
        if batch <= self.last_batch:
            return
        self.last_batch = batch
        keys = {number: key for key, (number, _) in self.streams.items()}
        self.inserts.append(sum(block.line_count for _, block in blocks))
        for one, block in blocks:
            if one in keys:
                self.add(keys[one], block)

    async def former_issuers(self) -> list[str]:
        """Return the names of issuers that are no MAC."""
        return sorted({one.issuer for one in self.lines if ":" not in one.issuer})

    async def forget_former(self, name: str) -> None:
        """Delete lines at once."""
        self.rows = [row for row in self.rows if row[1].issuer != name]

    async def remove_forgotten(self, count: int) -> bool:
        """Delete some lines of unknown issuers."""
        self.removals += 1
        gone = [row for row in self.rows if row[1].issuer in self.unknown][:count]
        self.rows = [row for row in self.rows if row not in gone]
        return bool(gone)

    async def make_partitions(self) -> None:
        """There are none; what `upkeep_errors` holds is raised."""
        self.upkeep.append("partitions")
        if self.upkeep_errors:
            raise self.upkeep_errors.pop(0)

    async def drop_older_than(self, days: int) -> None:
        """Note it."""
        self.upkeep.append(f"drop {days}")

    async def count(self, query: LogQuery) -> int:
        """Return how many lines match."""
        return len(self.matching(query))

    async def open(
        self, query: LogQuery, settled: Callable[[], object] = lambda: None
    ) -> ILogCursor:
        """Return a cursor, once `opening` fires."""
        cursor = FakeCursor(self.matching(query), self.block, self.reading)
        settled()
        if self.refusal is not None:
            raise self.refusal
        if self.opening is not None:
            await self.opening
        self.cursors.append(cursor)
        return cursor


@implementer(ILogCursor)
class FakeCursor:
    """Lines by blocks; each waits for `gate`, when there is one."""

    def __init__(
        self, lines: list[LogLine], block: int, gate: Deferred[None] | None = None
    ) -> None:
        self._lines = lines
        self._block = block
        self._gate = gate
        self.closed = False

    async def next_block(self) -> Block:
        """Return the next lines."""
        if self._gate is not None:
            await self._gate
        block, self._lines = self._lines[:self._block], self._lines[self._block:]
        return block_of(block)

    async def close(self) -> None:
        """Return nothing any more."""
        self._lines, self.closed = [], True


@implementer(ICheckpoints)
class FakeCheckpoints:
    """Times by (user, name)."""

    def __init__(self, times: dict[tuple[str, str], float] | None = None) -> None:
        self.times = times or {}

    async def time_of(self, user: str, name: str) -> float:
        """Return the time of a checkpoint."""
        if (user, name) not in self.times:
            raise NotFound(f'you have no checkpoint named "{name}"')
        return self.times[user, name]

    async def add(self, user: str, name: str, moment: float) -> None:
        """Name a time."""
        if (user, name) in self.times:
            raise Conflict(f'you have a checkpoint named "{name}" already')
        self.times[user, name] = moment

    async def remove(self, user: str, name: str) -> None:
        """Forget a time."""
        await self.time_of(user, name)
        del self.times[user, name]

    async def all_of(self, user: str) -> list[tuple[float, str]]:
        """Return the times of a user."""
        return sorted(
            (moment, name) for (owner, name), moment in self.times.items() if owner == user
        )
