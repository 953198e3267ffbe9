"""What PostgreSQL knows of archived weeks: the tables logarchives and logarchivestreams."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import cast

import psycopg2
from psycopg2 import sql
from zope.interface import implementer

from walt.common.errors import Busy, Unavailable
from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.domain.logs.archive import ArchivedFile, Owner, Part, StreamShare, Written
from walt.server.domain.logs.interfaces import IArchiveRecords

# Readers keep the tables for as long as they read: nobody waits behind us.
_SHORT_WAIT = "SET LOCAL lock_timeout = '50ms'"
# Whoever stores or reads lines waits meanwhile.
_LONGEST_LOOK = "SET LOCAL statement_timeout = '20s'"
# Nobody waits for this one.
_LONGEST_REMOVAL = "SET LOCAL statement_timeout = '10min'"
# Files that were given up stay for so long: readers who began before go on, and a database that
# is restored from a backup of the last days, or a replica that lacked the last transactions, finds
# the files it names.
KEPT_DAYS = 7
# Late lines become a file once in so many days: else each line could be one.
LATE_EVERY_DAYS = 7
# Lines of a week without any file, which came after it ended, that are worth one of their own.
OWN_FILE = 100
# Rows that are added by one statement: a turn of the reactor stays short.
STREAMS_AT_ONCE = 1000
LATE = "logs_late"

_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'logs'::regclass AND c.relname ~ '^logs_[0-9]{8}$'
  AND to_date(substr(c.relname, 6), 'YYYYMMDD') + 7 < now() - %s * interval '1 day'
  AND c.relname <> ALL(%s)
ORDER BY c.relname LIMIT 1
"""
_IS_WATCHED = """
SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname = 'note_late')
"""
_WATCH = sql.SQL("""
CREATE TRIGGER note_late AFTER INSERT ON {} FOR EACH ROW EXECUTE FUNCTION note_late_log()
""")
_CAME = "SELECT EXISTS (SELECT FROM logarchivelate WHERE part = %s AND arrival > %s)"
_LATE = f"""
UPDATE logarchiveowner SET late_before = date_trunc('week', now() - %s * interval '1 day')
WHERE late_moved < now() - interval '{LATE_EVERY_DAYS} days' RETURNING late_before
"""  # noqa: S608 (nothing but the text above)
_UNFILED = f"""
SELECT min(l.first) FROM (
    SELECT min(timestamp) AS first FROM logs_default
    WHERE timestamp < date_trunc('week', now() - %s * interval '1 day')
    GROUP BY date_trunc('week', timestamp) HAVING count(*) >= {OWN_FILE}
) l WHERE NOT EXISTS (
    SELECT FROM logarchives a WHERE a.week = date_trunc('week', l.first)::date)
"""  # noqa: S608 (nothing but the text above)
_NEWEST_LATE = "SELECT date_trunc('week', max(timestamp))::date FROM logs_late"
_MOVE_LATE = """
WITH moved AS (DELETE FROM logs_late WHERE arrival <= %s RETURNING stream_id)
SELECT count(*) FROM moved WHERE stream_id IN (SELECT id FROM logstreams)
"""
_TAKE = "UPDATE logarchiveattempts SET abandoned = true RETURNING prefix"
_MINE = "SELECT FROM logarchiveattempts WHERE prefix = %s AND NOT abandoned FOR SHARE"
_END = "DELETE FROM logarchiveattempts WHERE prefix = %s AND NOT abandoned RETURNING prefix"
_MOMENT = "to_timestamp(%s::double precision / 1000000)"
_FILE = f"""
INSERT INTO logarchives (name, week, lines, size, first, last, first_place, last_place, gone)
VALUES (%s, %s, %s, %s, {_MOMENT}, {_MOMENT}, {_MOMENT}, {_MOMENT}, 'infinity')
"""  # noqa: S608 (nothing but the text above)
_STREAMS = """
INSERT INTO logarchivestreams (archive, stream_id, lines, last_place)
SELECT %s, new.id, new.lines, to_timestamp(new.last::double precision / 1000000)
FROM unnest(%s::integer[], %s::bigint[], %s::bigint[]) AS new (id, lines, last)
"""
_SHOW = """
UPDATE logarchives SET gone = NULL, made = now() WHERE gone = 'infinity' AND name = ANY(%s)
RETURNING name
"""
_FORGET = """
DELETE FROM logarchives WHERE gone = 'infinity' AND starts_with(name, %s || '-')
"""
_FORGOTTEN = """
SELECT archive, array_agg(stream_id) FROM logarchivestreams x
JOIN logarchives a ON a.name = x.archive
WHERE a.gone IS NULL AND NOT EXISTS (SELECT FROM logstreams s WHERE s.id = x.stream_id)
GROUP BY archive ORDER BY archive LIMIT 1
"""


class _Changed(Exception):
    """The lines in the database are not those that were written."""


@implementer(IArchiveRecords)
class PostgresLogArchives:
    """The records of archived weeks; `at_once` rows of streams are added by one statement."""

    def __init__(self, database: Database, at_once: int = STREAMS_AT_ONCE) -> None:
        self._database, self._at_once = database, at_once
        self._staged = ""  # the attempt whose rows were added last

    async def owner(self) -> Owner:
        """Return who this platform is."""
        ((platform, has_files),) = await self._database.query(
            "SELECT platform::text, EXISTS (SELECT FROM logarchives WHERE gone IS NULL)"
            " FROM logarchiveowner"
        )
        return Owner(str(platform), bool(has_files))

    async def due(self, days: int, but: Collection[str] = ()) -> Part | None:
        """Return the oldest partition that is due, or all late lines together."""
        rows = await self._database.query(_PARTITIONS, (days, list(but)))
        if not rows and await self._made_room(days):
            rows = await self._database.query(_PARTITIONS, (days, list(but)))
        if rows:
            table = str(rows[0][0])
            await self._watch(table)
            return Part(table, datetime.strptime(table, "logs_%Y%m%d").date())
        return None if LATE in but else await self._late(days)

    async def _made_room(self, days: int) -> bool:
        """Make a table of a week that many lines came for after it ended, and no file has."""

        async def work(transaction: Transaction) -> bool:
            await transaction.execute(_SHORT_WAIT)
            ((first,),) = await transaction.query(_UNFILED, (days,))
            if first is None:
                return False
            await transaction.execute("SELECT ensure_log_partition(%s)", (first,))
            return True

        return await self._database.transaction(work)

    async def _watch(self, table: str) -> None:
        """Have the lines that come from now on noted; none is under way at this moment."""
        name = sql.Identifier(table)

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_SHORT_WAIT)
            # What CREATE TRIGGER takes, too: who reads is no obstacle.
            await transaction.execute(
                sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(name)
            )
            ((watched,),) = await transaction.query(_IS_WATCHED, (table,))
            if not watched:
                await transaction.execute(_WATCH.format(name))
            await transaction.execute("DELETE FROM logarchivelate WHERE part = %s", (table,))

        await self._database.transaction(work)

    async def _late(self, days: int) -> Part | None:
        async def work(transaction: Transaction) -> date | None:
            await transaction.execute(_SHORT_WAIT)
            if not await transaction.query(_LATE, (days,)):
                return None
            # Lines under way have higher numbers than all that are there.
            await transaction.execute("LOCK TABLE logs_default IN SHARE MODE")
            ((week,),) = await transaction.query(_NEWEST_LATE)
            return None if week is None else cast("date", week)

        week = await self._database.transaction(work)
        return None if week is None else Part(LATE, week)

    async def begin(self, prefix: str) -> None:
        """Note an attempt."""
        await self._database.execute(
            "INSERT INTO logarchiveattempts (prefix) VALUES (%s)", (prefix,)
        )

    async def abandoned(self) -> list[str]:
        """Take attempts that did not end."""

        async def work(transaction: Transaction) -> list[str]:
            await transaction.execute(_SHORT_WAIT)
            return [str(prefix) for (prefix,) in await transaction.query(_TAKE)]

        try:
            return await self._database.transaction(work)
        except Busy:
            # The rows of an attempt are held by a transaction that is being committed.
            raise Unavailable(
                "whether the last files of archived log lines were recorded is not known yet: a"
                " transaction of the database goes on, as when a primary waits for the replicas"
                " of its synchronous_standby_names; nothing is removed before"
            ) from None

    async def forget_attempt(self, prefix: str) -> None:
        """Forget one."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_FORGET, (prefix,))
            await transaction.execute("DELETE FROM logarchiveattempts WHERE prefix = %s", (prefix,))

        await self._database.transaction(work)

    async def _stage(self, week: date, prefix: str, files: Sequence[ArchivedFile]) -> None:
        """Add the rows of files, which nobody reads yet, little by little; once an attempt."""
        if self._staged == prefix:
            return
        for file in files:

            async def added(transaction: Transaction, file: ArchivedFile = file) -> None:
                await _still_ours(transaction, _MINE, prefix)
                await transaction.execute(_FILE, (
                    file.name, week, file.lines, file.size, file.first, file.last,
                    file.first_place, file.last_place,
                ))

            await self._database.transaction(added)
            streams = iter(file.streams.items())
            while some := list(itertools.islice(streams, self._at_once)):

                async def shares(
                    transaction: Transaction, name: str = file.name,
                    some: list[tuple[int, StreamShare]] = some,
                ) -> None:
                    await _still_ours(transaction, _MINE, prefix)
                    await transaction.execute(_STREAMS, (
                        name, [number for number, _ in some], [share.lines for _, share in some],
                        [share.last_place for _, share in some],
                    ))

                await self._database.transaction(shares)
        self._staged = prefix

    async def finish(self, part: Part, prefix: str, written: Written) -> bool:
        """Record and drop, or neither."""
        await self._stage(part.week, prefix, written.files)

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_SHORT_WAIT)
            if part.table == LATE:
                await _remove_late(transaction, written)
            else:
                await _drop(transaction, part.table, written.mark)
            await _show(transaction, prefix, written.files)

        try:
            await self._database.transaction(work)
        except psycopg2.errors.QueryCanceled:
            raise Busy("removing archived lines took too long; try again later") from None
        # Retention dropped it meanwhile.
        except (_Changed, psycopg2.errors.UndefinedTable):
            return False
        return True

    async def retire(self, days: int) -> None:
        """Give up old files."""
        await self._database.execute(
            "UPDATE logarchives SET gone = now() WHERE gone IS NULL"
            " AND week + 7 < now() - %s * interval '1 day'", (days,),
        )

    async def gone(self) -> list[str]:
        """Return what was given up."""
        rows = await self._database.query(
            "SELECT name FROM logarchives WHERE gone < now() - %s * interval '1 day'",
            (KEPT_DAYS,),
        )
        return [str(name) for (name,) in rows]

    async def removed(self, names: Sequence[str]) -> None:
        """Forget files."""
        await self._database.execute(
            "DELETE FROM logarchives WHERE gone <= now() AND name = ANY(%s)", (list(names),)
        )

    async def with_forgotten(self) -> tuple[str, list[int]] | None:
        """Return one file that has lines of forgotten streams."""
        rows = await self._database.query(_FORGOTTEN)
        return (str(rows[0][0]), [int(row) for row in rows[0][1]]) if rows else None

    async def replace(self, former: str, prefix: str, files: Sequence[ArchivedFile]) -> None:
        """Put files in the place of one."""
        ((week,),) = await self._database.query(
            "SELECT week FROM logarchives WHERE name = %s", (former,)
        )
        await self._stage(week, prefix, files)

        async def work(transaction: Transaction) -> None:
            await transaction.execute(_SHORT_WAIT)
            await transaction.execute(
                "UPDATE logarchives SET gone = now() WHERE gone IS NULL AND name = %s", (former,)
            )
            await _show(transaction, prefix, files)

        await self._database.transaction(work)

    async def files(self) -> list[tuple[str, int]]:
        """Return all files that are read."""
        rows = await self._database.query(
            "SELECT name, size FROM logarchives WHERE gone IS NULL ORDER BY name"
        )
        return [(str(name), int(size)) for name, size in rows]


async def _still_ours(transaction: Transaction, statement: str, prefix: str) -> None:
    if not await transaction.query(statement, (prefix,)):
        raise Unavailable(f"the files {prefix}-… were given up meanwhile; they are written anew")


async def _show(transaction: Transaction, prefix: str, files: Sequence[ArchivedFile]) -> None:
    """End an attempt: its files are read from now on."""
    await _still_ours(transaction, _END, prefix)
    shown = await transaction.query(_SHOW, ([file.name for file in files],))
    if len(shown) != len(files):
        raise Unavailable(f"the database does not know all files {prefix}-… any more")


async def _drop(transaction: Transaction, table: str, mark: int) -> None:
    """Drop the table of a week unless lines came. Raises _Changed."""
    name = sql.Identifier(table)
    await transaction.execute(_LONGEST_LOOK)
    await transaction.execute("LOCK TABLE ONLY logs IN ACCESS EXCLUSIVE MODE")
    await transaction.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name))
    ((watched,),) = await transaction.query(_IS_WATCHED, (table,))
    ((came,),) = await transaction.query(_CAME, (table, mark))
    if came or not watched:
        raise _Changed
    await transaction.execute(sql.SQL("DROP TABLE {}").format(name))
    await transaction.execute("DELETE FROM logarchivelate WHERE part = %s", (table,))


async def _remove_late(transaction: Transaction, written: Written) -> None:
    """Remove the late lines that were written; later ones stay. Raises _Changed."""
    await transaction.execute(_LONGEST_REMOVAL)
    ((moved,),) = await transaction.query(_MOVE_LATE, (written.mark,))
    # Fewer are some of a device that was forgotten meanwhile.
    if moved > sum(file.lines for file in written.files):
        raise _Changed
    await transaction.execute("UPDATE logarchiveowner SET late_moved = now()")
