"""What PostgreSQL knows of archived weeks: the tables logarchives and logarchivestreams."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import psycopg2
from psycopg2 import sql
from zope.interface import implementer

from walt.common.errors import Busy
from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.domain.logs.archive import ArchivedFile, Owner, Part, Written
from walt.server.domain.logs.interfaces import IArchiveRecords

# Readers keep the tables for as long as they read: nobody waits behind us.
_SHORT_WAIT = "SET LOCAL lock_timeout = '50ms'"
# Senders of lines of this one week wait meanwhile.
_LONGEST_LOOK = "SET LOCAL statement_timeout = '20s'"

_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'logs'::regclass AND c.relname ~ '^logs_[0-9]{8}$'
  AND to_date(substr(c.relname, 6), 'YYYYMMDD') + 7 < now() - %s * interval '1 day'
ORDER BY c.relname LIMIT 1
"""
# What comes late waits for a week: else each line could become a file.
_LATE = """
SELECT min(timestamp) FROM logs_default l
WHERE date_trunc('week', timestamp) + interval '7 days' < now() - %s * interval '1 day'
  AND NOT EXISTS (
      SELECT FROM logarchives a WHERE a.week = date_trunc('week', l.timestamp)::date
      AND a.made > now() - interval '7 days')
"""
_NEW = sql.SQL("""
SELECT EXISTS (SELECT FROM {} WHERE arrival > %s AND stream_id IN (SELECT id FROM logstreams))
""")
_MOMENT = "to_timestamp(%s::double precision / 1000000)"
_FILE = f"""
INSERT INTO logarchives (name, week, lines, size, first, last, first_place, last_place)
VALUES (%s, %s, %s, %s, {_MOMENT}, {_MOMENT}, {_MOMENT}, {_MOMENT})
"""  # noqa: S608 (nothing but the text above)
_STREAMS = """
INSERT INTO logarchivestreams (archive, stream_id, lines, last_place)
SELECT %s, new.id, new.lines, to_timestamp(new.last::double precision / 1000000)
FROM unnest(%s::integer[], %s::bigint[], %s::bigint[]) AS new (id, lines, last)
"""
_FORGOTTEN = """
SELECT archive, array_agg(stream_id) FROM logarchivestreams x
JOIN logarchives a ON a.name = x.archive
WHERE a.gone IS NULL AND NOT EXISTS (SELECT FROM logstreams s WHERE s.id = x.stream_id)
GROUP BY archive ORDER BY archive LIMIT 1
"""


@implementer(IArchiveRecords)
class PostgresLogArchives:
    """The records of archived weeks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def owner(self) -> Owner:
        """Return who this platform is."""
        ((platform, has_files),) = await self._database.query(
            "SELECT platform::text, EXISTS (SELECT FROM logarchives WHERE gone IS NULL)"
            " FROM logarchiveowner"
        )
        return Owner(str(platform), bool(has_files))

    async def due(self, days: int) -> Part | None:
        """Return the oldest partition that is due."""
        rows = await self._database.query(_PARTITIONS, (days,))
        if not rows:
            async def work(one: Transaction) -> None:
                await one.execute(_SHORT_WAIT)
                ((late,),) = await one.query(_LATE, (days,))
                if late is not None:
                    await one.execute("SELECT ensure_log_partition(%s)", (late,))

            await self._database.transaction(work)
            rows = await self._database.query(_PARTITIONS, (days,))
        if not rows:
            return None
        table = str(rows[0][0])
        return Part(table, datetime.strptime(table, "logs_%Y%m%d").date())

    async def begin(self, prefix: str) -> None:
        """Note an attempt."""
        await self._database.execute("INSERT INTO logarchiveattempts VALUES (%s)", (prefix,))

    async def attempts(self) -> list[str]:
        """Return attempts that did not end."""
        rows = await self._database.query("SELECT prefix FROM logarchiveattempts")
        return [str(prefix) for (prefix,) in rows]

    async def forget_attempt(self, prefix: str) -> None:
        """Forget one."""
        await self._database.execute(
            "DELETE FROM logarchiveattempts WHERE prefix = %s", (prefix,)
        )

    async def finish(self, part: Part, prefix: str, written: Written) -> bool:
        """Record and drop, or neither."""
        table = sql.Identifier(part.table)

        async def work(one: Transaction) -> bool:
            await one.execute(_SHORT_WAIT)
            await one.execute(_LONGEST_LOOK)
            await one.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(table))
            ((changed,),) = await one.query(_NEW.format(table), (written.mark,))
            if changed:
                return False
            await _record(one, part.week, prefix, written.files)
            await one.execute(sql.SQL("DROP TABLE {}").format(table))
            return True

        try:
            return await self._database.transaction(work)
        except psycopg2.errors.QueryCanceled:
            raise Busy("looking for late lines took too long; try again later") from None

    async def retire(self, days: int) -> None:
        """Give up old files."""
        await self._database.execute(
            "UPDATE logarchives SET gone = now() WHERE gone IS NULL"
            " AND week + 7 < now() - %s * interval '1 day'", (days,),
        )

    async def gone(self) -> list[str]:
        """Return what was given up."""
        rows = await self._database.query("SELECT name FROM logarchives WHERE gone IS NOT NULL")
        return [str(name) for (name,) in rows]

    async def removed(self, names: Sequence[str]) -> None:
        """Forget files."""
        await self._database.execute(
            "DELETE FROM logarchives WHERE gone IS NOT NULL AND name = ANY(%s)", (list(names),)
        )

    async def with_forgotten(self) -> tuple[str, list[int]] | None:
        """Return one file that has lines of forgotten streams."""
        rows = await self._database.query(_FORGOTTEN)
        return (str(rows[0][0]), [int(one) for one in rows[0][1]]) if rows else None

    async def replace(self, former: str, prefix: str, files: Sequence[ArchivedFile]) -> None:
        """Put files in the place of one."""

        async def work(one: Transaction) -> None:
            rows = await one.query(
                "UPDATE logarchives SET gone = now() WHERE name = %s RETURNING week", (former,)
            )
            await _record(one, rows[0][0], prefix, files)

        await self._database.transaction(work)

    async def files(self) -> list[tuple[str, int]]:
        """Return all files that are read."""
        rows = await self._database.query(
            "SELECT name, size FROM logarchives WHERE gone IS NULL ORDER BY name"
        )
        return [(str(name), int(size)) for name, size in rows]


async def _record(
    one: Transaction, week: date, prefix: str, files: Sequence[ArchivedFile]
) -> None:
    for file in files:
        await one.execute(_FILE, (
            file.name, week, file.lines, file.size, file.first, file.last,
            file.first_place, file.last_place,
        ))
        await one.execute(_STREAMS, (
            file.name, list(file.streams), [one.lines for one in file.streams.values()],
            [one.last_place for one in file.streams.values()],
        ))
    await one.execute("DELETE FROM logarchiveattempts WHERE prefix = %s", (prefix,))
