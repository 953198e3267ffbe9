"""Log lines in PostgreSQL: arrays in, server-side cursors out."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import psycopg2
from psycopg2 import sql
from twisted.internet.defer import Deferred, TimeoutError
from zope.interface import implementer

from walt.common.errors import Invalid, LimitExceeded
from walt.server.adapters.postgres.archived_lines import STEADY, Archived, archived
from walt.server.adapters.postgres.connection import (
    LIMITS,
    Database,
    Transaction,
    abandonable,
    unavailable,
    was_lost,
)
from walt.server.adapters.postgres.log_cursor import LogCursor, reader_of
from walt.server.adapters.postgres.log_queries import (
    SNAPSHOT,
    Limits,
    limited,
    of_lines,
    selected_streams,
)
from walt.server.domain.logs.interfaces import ILogArchive, ILogCursor, ILogStore
from walt.server.domain.logs.model import (
    KnownStream,
    LogBlock,
    LogQuery,
    StreamKey,
    StreamMode,
)

TOO_MANY = "counting these log lines takes too long"
# Upkeep needs a table for itself: waiting for a long query would keep all senders behind us.
_SHORT_WAIT = "SET LOCAL lock_timeout = '50ms'"
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

def _joined(moments: Sequence[float] | None) -> str | None:
    return None if moments is None else "\n".join(map(repr, moments))


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
                connection.runOperation(SNAPSHOT, limited(self._limits.count))
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
        cursor = LogCursor(self._database, self._limits, self._archive)
        await cursor.start(query, settled)
        return cursor
