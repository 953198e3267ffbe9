"""Log lines in PostgreSQL: arrays in, server-side cursors out."""

from __future__ import annotations

import uuid
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import sql
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from zope.interface import implementer

from walt.common.errors import Invalid, LimitExceeded, Unavailable, WaltError
from walt.common.records import Block, block_of, numbers
from walt.server.adapters.postgres.archived_lines import STEADY, Archived, archived
from walt.server.adapters.postgres.connection import (
    LIMITS,
    Database,
    Row,
    Transaction,
    abandonable,
    unavailable,
    was_lost,
)
from walt.server.adapters.postgres.log_queries import of_lines, searches, selected_streams
from walt.server.domain.logs.interfaces import (
    IArchiveReader,
    ILogArchive,
    ILogCursor,
    ILogStore,
)
from walt.server.domain.logs.merging import MergedSource, Placed, next_merged
from walt.server.domain.logs.model import (
    KnownStream,
    LogBlock,
    LogQuery,
    StreamKey,
    StreamMode,
)

Key = tuple[datetime, int]  # place and arrival of a line

FIRST_BLOCK, BLOCK = 200, 4000  # lines read at once, the first time and later
BLOCK_SIZE = 512 << 10  # octets, about: fewer lines are read when they are long
TOO_MANY = "counting these log lines takes too long"
LONG = 16 << 10  # octets above which a line is read alone
# Upkeep needs a table for itself: waiting for a long query would keep all senders behind us.
_SHORT_WAIT = "SET LOCAL lock_timeout = '50ms'"
# A query goes on only as long as somebody wants its result.
_LIMITED = "SET client_connection_check_interval = '1s'; SET statement_timeout = %s"
_SNAPSHOT = f"{_LIMITED}; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

# What is wrong with the lines themselves, and would be so the next time too.
_REFUSALS = (psycopg2.DataError, psycopg2.IntegrityError, ValueError, *LIMITS)

# Lines travel in blocks that PostgreSQL itself cuts: nothing is done line by line here,
# which is twice as fast as one array element a line, and as fast as COPY. The first part
# remembers the last batch of this server: one sent again is not stored again.
_INSERT = """
WITH news AS (
    INSERT INTO logbatches AS known (writer, batch) VALUES (%s, %s)
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch WHERE known.batch < excluded.batch
    RETURNING batch
)
INSERT INTO logs (stream_id, timestamp, place, arrival, line)
SELECT new.id, to_timestamp(coalesce(one.stamp::double precision, new.moment)),
       to_timestamp(
           coalesce(one.place::double precision, one.stamp::double precision, new.moment)),
       new.arrival + coalesce(one.number, 1) - 1,
       coalesce(one.line, '')  -- an empty text has no parts, and is one empty line
FROM news CROSS JOIN
     unnest(%s::integer[], %s::double precision[], %s::bigint[], %s::text[], %s::text[],
            %s::text[])
         AS new (id, moment, arrival, stamps, places, lines)
     JOIN logstreams s ON s.id = new.id LEFT JOIN LATERAL
     ROWS FROM (string_to_table(new.stamps, E'\\n'), string_to_table(new.places, E'\\n'),
                string_to_table(new.lines, E'\\n')) WITH ORDINALITY
         AS one (stamp, place, line, number) ON true
"""

# Lines of one place stay together: a block of lines that came at once.
_REMOVE = """
WITH gone AS (
    DELETE FROM logs WHERE stream_id = %s AND place <= coalesce(
        (SELECT place FROM logs WHERE stream_id = %s ORDER BY place OFFSET %s LIMIT 1),
        'infinity')
    RETURNING 1
) SELECT count(*) FROM gone
"""
_REMOVED = """
DELETE FROM logremovals r WHERE stream_id = %s AND since < now() - %s * interval '1 second'
AND NOT EXISTS (SELECT FROM logs l WHERE l.stream_id = r.stream_id)
"""

_STREAMS = """
WITH known AS (
    INSERT INTO logstreams (issuer_mac, name, mode)
    SELECT new.mac, new.name, new.mode::logmode
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS new (mac, name, mode)
    JOIN devices d USING (mac)
    ON CONFLICT (issuer_mac, name) DO UPDATE SET mode = excluded.mode
    RETURNING issuer_mac, name, id
)
SELECT issuer_mac, name, id, coalesce(date_part('epoch', greatest(
    (SELECT max(place) FROM logs WHERE stream_id = id),
    (SELECT max(last_place) FROM logarchivestreams WHERE stream_id = id))), '-infinity')
FROM known
"""

# Columns of the next lines, as `walt.common.records` describes them, and where long ones are.
_FETCH = sql.SQL("""
SELECT string_agg(int8send(moment), ''), string_agg(int4send(stream), ''),
       string_agg(int4send(octet_length(line)), ''),
       coalesce(string_agg(CASE WHEN octet_length(line) <= %(long)s THEN line END, ''), ''),
       array_agg(place) FILTER (WHERE octet_length(line) > %(long)s),
       array_agg(arrival) FILTER (WHERE octet_length(line) > %(long)s), {}, {}
FROM fetched_logs(%(cursor)s, %(count)s)
""")
# Where other lines come between: the place of each, and its arrival.
_PLACES = sql.SQL("string_agg(int8send((date_part('epoch', place) * 1000000)::bigint), '')")
_ARRIVALS = sql.SQL("string_agg(int8send(arrival), '')")
_LONG_LINE = "SELECT line FROM logs WHERE place = %s AND arrival = %s"
_SOURCES = """
SELECT id, coalesce(issuer_mac, former), name FROM logstreams WHERE id = ANY(%s)
"""


def _joined(moments: Sequence[float] | None) -> str | None:
    return None if moments is None else "\n".join(map(repr, moments))


def _limited(seconds: float) -> tuple[int]:
    """Return the values of _LIMITED: the limit in milliseconds."""
    return (int(seconds * 1000),)


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds, and how much a query may hold."""

    count: float = 20.0  # to count
    search: float = 300.0  # to find the next lines
    listed: int = 1000  # streams whose numbers a query gets; it looks for more itself
    last_batches: float = 2.0  # after which no batch can bring lines of a forgotten device


@implementer(ILogStore)
class PostgresLogs:
    """The tables logs and logstreams, and weeks of lines in the files of an archive.

    `limits` are other ones than usual.
    """

    def __init__(
        self, database: Database, limits: Limits | None = None, archive: ILogArchive | None = None
    ) -> None:
        self._database = database
        self._archive = archive
        self._limits = limits or Limits()
        self._writer = str(uuid.uuid4())
        self._arrival = 0  # number of the next line

    async def prepare(self) -> None:
        """Forget older writers (none of them sends a batch again), number lines after theirs."""
        await self._database.execute("DELETE FROM logbatches")
        ((self._arrival,),) = await self._database.query("SELECT nextval('logarrivals')")

    async def make_partitions(self) -> None:
        """Create the partitions of this week and of the next one. Raises Busy."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_SHORT_WAIT)
            await transaction.execute(
                "SELECT ensure_log_partition(now()),"
                " ensure_log_partition(now() + interval '7 days')"
            )

        await self._database.transaction(work)

    async def drop_older_than(self, days: int) -> None:
        """Drop the weekly partitions that ended more than `days` ago. Raises Busy."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_SHORT_WAIT)
            rows = await transaction.query(
                "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
                " WHERE i.inhparent = 'logs'::regclass AND c.relname ~ '^logs_[0-9]{8}$'"
                " AND to_date(substr(c.relname, 6), 'YYYYMMDD') + 7"
                " < now() - %s * interval '1 day'",
                (days,),
            )
            for (name,) in rows:
                await transaction.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
            await transaction.execute(
                "DELETE FROM logs_default WHERE timestamp < now() - %s * interval '1 day'", (days,)
            )

        await self._database.transaction(work)

    async def former_issuers(self) -> list[str]:
        """Return the names of forgotten devices whose lines were kept."""
        rows = await self._database.query(
            "SELECT DISTINCT former FROM logstreams WHERE former IS NOT NULL"
        )
        return [str(name) for (name,) in rows]

    async def forget_former(self, name: str) -> None:
        """Forget the streams that were kept of forgotten devices of this name."""
        await self._database.execute(
            "WITH gone AS (DELETE FROM logstreams WHERE former = %s RETURNING id)"
            " INSERT INTO logremovals (stream_id) SELECT id FROM gone", (name,),
        )

    async def remove_forgotten(self, count: int) -> bool:
        """Delete about `count` lines of forgotten devices; tell whether more may be left."""
        rows = await self._database.query("SELECT stream_id FROM logremovals ORDER BY since")

        async def work(transaction: Transaction) -> int:
            # What a crash undoes is deleted again: nobody has to wait for this on the disk.
            await transaction.execute("SET LOCAL synchronous_commit = off")
            deleted = await transaction.query(_REMOVE, (stream, stream, count))
            return int(deleted[0][0])

        for (stream,) in rows:
            if await self._database.transaction(work):
                return True
            # A batch under way when the device was forgotten may have added some.
            await self._database.execute(_REMOVED, (stream, self._limits.last_batches))
        return bool(rows)

    async def ensure_streams(
        self, streams: Mapping[StreamKey, StreamMode]
    ) -> Mapping[StreamKey, KnownStream]:
        """Create missing streams; streams of unknown devices are left out."""
        try:
            rows = await self._database.query(_STREAMS, (
                [key.issuer for key in streams], [key.name for key in streams],
                list(streams.values()),
            ))
        except _REFUSALS as error:
            raise Invalid(f"PostgreSQL does not take these streams: {error}") from error
        return {
            StreamKey(mac, name): KnownStream(int(number), float(last))
            for mac, name, number, last in rows
        }

    async def insert(self, batch: int, blocks: Sequence[tuple[int, LogBlock]]) -> None:
        """Store blocks in one statement."""
        counts = [block.line_count for _, block in blocks]
        *arrivals, following = accumulate(counts, initial=self._arrival)
        try:
            await self._database.execute(_INSERT, (
                self._writer, batch,
                [number for number, _ in blocks], [block.moment for _, block in blocks],
                arrivals, [_joined(block.stamps) for _, block in blocks],
                [_joined(block.places) for _, block in blocks],
                [block.text for _, block in blocks],
            ))
        except _REFUSALS as error:
            raise Invalid(f"PostgreSQL does not take these lines: {error}") from error
        self._arrival = following

    async def count(self, query: LogQuery) -> int:
        """Return how many stored lines match. Raises Invalid or LimitExceeded.

        On a connection of its own: a long search must not keep those of ingestion.
        """
        connection = await self._database.connect()
        try:
            await abandonable(
                connection.runOperation(_SNAPSHOT, _limited(self._limits.count))
            )
            await abandonable(connection.runOperation(STEADY))
            wanted = await archived(connection, query, counted=True)
            lines = of_lines(query, await selected_streams(connection, query, self._limits.listed))
            rows = await abandonable(connection.runQuery(
                sql.SQL("SELECT count(*) FROM logs l WHERE {}").format(lines.text),
                tuple(lines.values),
            ))
        except psycopg2.errors.InvalidRegularExpression as error:
            raise Invalid(f"invalid regular expression: {str(error).strip()}") from None
        except psycopg2.errors.QueryCanceled:
            raise LimitExceeded(TOO_MANY) from None
        except Exception as error:
            if was_lost(error):
                raise unavailable(error) from error
            raise
        finally:
            connection.close()
        return int(rows[0][0]) + (0 if wanted is None else await self._count_archived(wanted))

    async def _count_archived(self, wanted: Archived) -> int:
        unknown = [number for number, lines in enumerate(wanted.known) if lines is None]
        found = sum(lines for lines in wanted.known if lines is not None)
        if unknown:
            reader = reader_of(self._archive, wanted)
            clock = self._database.clock
            end = clock.seconds() + self._limits.count
            try:
                for number in unknown:
                    counting = Deferred.fromCoroutine(reader.count(number))
                    found += await counting.addTimeout(max(0, end - clock.seconds()), clock)
            except TimeoutError:
                raise LimitExceeded(TOO_MANY) from None
            finally:
                await reader.close()
        return found

    async def open(
        self, query: LogQuery, settled: Callable[[], object] = lambda: None
    ) -> ILogCursor:
        """Return a cursor that reads blocks in order."""
        cursor = _Cursor(self._database, self._limits, self._archive)
        await cursor.start(query, settled)
        return cursor


def reader_of(archive: ILogArchive | None, wanted: Archived) -> IArchiveReader:
    """Return a reader of what is wanted. Raises Unavailable, LimitExceeded."""
    if archive is None:
        raise Unavailable(
            "log lines of this range of time were archived, and server.conf does not say where"
            " any more: ask the administrator to set logs.archive again, or give a later range"
        )
    return archive.read(wanted.reading)


class _Part(NamedTuple):
    """Lines that were read, or one whose text is to be read by its key.

    `places` and `arrivals` are empty where nobody asks for them.
    """

    block: Block
    key: Key | None
    places: array[int]
    arrivals: array[int]


@implementer(ILogCursor)
class _Cursor:
    """Server-side cursors, one after the other, on a connection of its own, in one transaction.

    While a block is read, the next one is on its way: both processors work. A search ends
    after `limits.search` seconds. Archived lines come in their places between the others.
    """

    def __init__(
        self, database: Database, limits: Limits, archive: ILogArchive | None
    ) -> None:
        self._database, self._limits, self._archive = database, limits, archive
        self._reader: IArchiveReader | None = None
        self._merged: list[MergedSource] = []  # what is read in place of the database alone
        self._fetch = _FETCH.format(sql.NULL, sql.NULL)
        self._connection: Any = None
        self._coming: Deferred[list[Row]] | None = None
        self._sources: dict[int, tuple[str, str]] = {}  # (issuer, stream) by id
        self._parts: deque[_Part] = deque()
        self._count = FIRST_BLOCK
        self._following = 0  # how many cursors have not been read

    async def start(self, query: LogQuery, settled: Callable[[], object]) -> None:
        """Open the transaction and the cursors: all see the same lines."""
        self._connection = await self._database.connect()
        try:
            await abandonable(
                self._connection.runOperation(_SNAPSHOT, _limited(self._limits.search))
            )
            await abandonable(self._connection.runOperation(STEADY))
            # The first query takes the snapshot of all (PostgreSQL manual, "Repeatable Read").
            await self._query("SELECT 1", ())
            settled()
            needed = await archived(self._connection, query)
            if needed is not None:
                self._merge(needed)
            selected = await selected_streams(self._connection, query, self._limits.listed)
            wanted = searches(query, of_lines(query, selected))
            for number, (text, values) in enumerate(reversed(wanted)):
                await abandonable(self._connection.runOperation(
                    sql.SQL("DECLARE {} NO SCROLL CURSOR FOR {}").format(
                        sql.Identifier(_named(number)), text
                    ),
                    tuple(values) or None,
                ))
        except (CancelledError, WaltError):
            await self.close()
            raise
        except Exception as error:
            await self.close()
            if was_lost(error):
                raise unavailable(error) from error
            raise Invalid(f"the query was refused: {str(error).strip()}") from None
        self._following = len(wanted) - 1
        self._ask()

    def _merge(self, needed: Archived) -> None:
        self._fetch = _FETCH.format(_PLACES, _ARRIVALS)
        self._reader = reader_of(self._archive, needed)
        self._merged = [MergedSource(self._next_stored)]
        for number, place in enumerate(needed.first_places):
            self._merged.append(MergedSource(partial(self._next_archived, number), (place, 0)))

    async def _next_archived(self, number: int) -> Placed:
        """Return the next lines of a file, empty at its end."""
        assert self._reader is not None
        found: Placed = await self._reader.following(number)
        numbered = [int(stream) for _, stream in found.block.sources]
        await self._learn(numbered)
        found.block.sources = [self._sources[stream] for stream in numbered]
        return found

    async def _next_stored(self) -> Placed:
        part = await self._next_part()
        return Placed(part.block, part.places, part.arrivals)

    def _ask(self) -> None:
        self._coming = self._query(self._fetch, {
            "cursor": _named(self._following), "count": self._count, "long": LONG,
        })

    def _query(
        self, text: str | sql.Composable, values: tuple[Any, ...] | dict[str, Any]
    ) -> Deferred[list[Row]]:
        return abandonable(self._connection.runQuery(text, values))

    async def next_block(self) -> Block:
        """Return the next lines, empty at the end."""
        try:
            if self._connection is None:
                return block_of([])
            if self._merged:
                return await next_merged(self._merged)
            return (await self._next_part()).block
        except (CancelledError, WaltError):
            await self.close()
            raise
        except psycopg2.errors.QueryCanceled:
            await self.close()
            raise LimitExceeded(
                f"no log line was found in {self._limits.search / 60:g} minutes of search;"
                " narrow the range of time, or the expression"
            ) from None
        except (psycopg2.Error, OSError) as error:
            await self.close()
            raise unavailable(error) from error

    async def _read(self) -> bool:
        """Read the next lines of the present cursor into `_parts`; tell whether there were any."""
        if self._coming is None:
            self._ask()
        coming, self._coming = self._coming, None
        assert coming is not None
        ((moments, streams, sizes, text, places, arrivals, *keys),) = await coming
        if moments is None:
            return False
        numbered = numbers("i", streams)
        used = list(set(numbered))
        await self._learn(used)
        octets = numbers("i", sizes)
        # Few lines at a time when they are long: a reader costs little memory.
        size = sum(octets) // len(octets) + 1
        self._count = max(1, min(BLOCK, 4 * self._count, BLOCK_SIZE // size))
        if places is None:
            self._ask()  # PostgreSQL works while these are made ready
        positions = {number: position for position, number in enumerate(used)}
        block = Block(
            [self._sources[number] for number in used], numbers("q", moments),
            array("i", map(positions.__getitem__, numbered)), octets, text.encode(),
        )
        whole = _Part(block, None, *(numbers("q", key or b"") for key in keys))
        if places is None:
            self._parts.append(whole)
        else:
            self._parts += _parted(whole, list(zip(places, arrivals, strict=True)))
        return True

    async def _learn(self, used: Sequence[int]) -> None:
        """Look up streams that are new to us."""
        new = [number for number in used if number not in self._sources]
        if new:
            rows = await self._query(_SOURCES, (new,))
            self._sources |= {int(number): (issuer, name) for number, issuer, name in rows}

    async def _next_part(self) -> _Part:
        """Return the next lines of the database, empty at the end."""
        while not self._parts and self._connection is not None:
            if await self._read():
                continue
            if not self._following:
                break
            self._following -= 1
        if not self._parts or self._connection is None:
            return _Part(block_of([]), None, array("q"), array("q"))
        part = self._parts.popleft()
        if part.key is not None:
            ((line,),) = await self._query(_LONG_LINE, part.key)
            part.block.text = line.encode()
        return part

    async def close(self) -> None:
        """Close the connection, and with it the cursor."""
        connection, self._connection = self._connection, None
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.addErrback(lambda failure: None)
            coming.cancel()
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        if connection is not None:
            connection.close()


def _parted(whole: _Part, keys: Sequence[Key]) -> Iterator[_Part]:
    """Yield lines by parts: each long one is a part with its key, its text is to be read."""
    block = whole.block

    def part(start: int, end: int, text: bytes, key: Key | None = None) -> _Part:
        cut = slice(start, end)
        return _Part(
            Block(block.sources, block.moments[cut], block.which[cut], block.sizes[cut], text),
            key, whole.places[cut], whole.arrivals[cut],
        )

    long = [position for position, size in enumerate(block.sizes) if size > LONG]
    start = octets = 0
    for position, key in (*zip(long, keys, strict=True), (len(block), None)):
        if start < position:
            size = sum(block.sizes[start:position])
            yield part(start, position, block.text[octets:octets + size])
            octets += size
        if key is not None:
            yield part(position, position + 1, b"", key)
        start = position + 1


def _named(number: int) -> str:
    return f"dump{number}"
