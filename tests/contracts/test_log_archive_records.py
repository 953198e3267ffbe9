"""Recording archived weeks: commits in doubt, late lines, files that were given up: PostgreSQL."""

from __future__ import annotations

from typing import Any

from pyarrow import parquet
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.contracts.test_log_archive import AFTER, DAY, A, ArchiveCase, B
from walt.common.errors import Busy, Unavailable
from walt.server.adapters.postgres import connection as connections
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.log_archives import PostgresLogArchives
from walt.server.domain.logs.archive import Part, Written
from walt.server.domain.logs.model import LogQuery


class RecordCase(ArchiveCase):
    """Two weeks of lines are due."""

    async def setUp(self) -> None:
        """Store them."""
        await super().setUp()
        for weeks in (12, 10):
            at = self.now - weeks * 7 * DAY - 60
            for mac in (A, B):
                await self.add(mac, "exp", [at + n for n in range(10)], [
                    f"{mac} {weeks} {n}" for n in range(10)
                ])

    async def written(self) -> tuple[Part, Written]:
        """Write the first week, as `logs-x`."""
        part = await self.records.due(AFTER)
        assert part is not None
        await self.records.begin("logs-x")
        return part, await self.archive.write(part, "logs-x", await self.records.owner())

    async def rows(self) -> int:
        """Return how many rows there are of files."""
        ((found,),) = await self.database.query("SELECT count(*) FROM logarchives")
        return int(found)


class DoubtTests(RecordCase):
    """What may still be recorded keeps its files; what was taken is not recorded."""

    async def hold(self, condition: str) -> tuple[Database, Deferred[None], Deferred[None]]:
        """Return a database whose next commit for which an SQL condition is true waits.

        What is returned with it fires when it waits, and lets it go on.
        """
        waits: Deferred[None] = Deferred()
        gate: Deferred[None] = Deferred()
        real = connections._commit

        async def held(connection: Any, clock: Any, limit: float) -> None:
            if not waits.called:
                ((met,),) = await connection.runQuery(f"SELECT {condition}")
                if met:
                    waits.callback(None)
                    await gate
            await real(connection, clock, limit)

        self.patch(connections, "_commit", held)
        database = Database(reactor, self.dsn)
        self.addCleanup(database.close)
        return database, waits, gate

    async def test_finish_in_doubt(self) -> None:
        """A commit that goes on while the next pass begins (a replica is away): no line is lost."""
        expected = await self.records_of(LogQuery())
        part, written = await self.written()
        database, waits, gate = await self.hold(f"to_regclass('{part.table}') IS NULL")
        finishing = Deferred.fromCoroutine(
            PostgresLogArchives(database).finish(part, "logs-x", written)
        )
        await waits
        self.assertIn("not known yet", (await self.move()).problem or "")
        self.flushLoggedErrors()
        self.assertEqual([one.name for one in self.parquets()], ["logs-x-001.parquet"])
        gate.callback(None)
        self.assertTrue(await finishing)
        self.assertIsNone((await self.move()).problem)
        self.assertEqual(await self.records_of(LogQuery()), expected)
        self.assertEqual(await self.in_database(), 0)

    async def test_replace_in_doubt(self) -> None:
        """So with a file that is written again."""
        await self.move()
        former = self.parquets()[0].name
        await self.devices.forget([A], {})
        expected = await self.records_of(LogQuery())
        await self.records.begin("logs-x")
        files = await self.archive.rewrite(former, "logs-x", await self.records.owner(), [1])
        database, waits, gate = await self.hold(
            f"EXISTS (SELECT FROM logarchives WHERE name = '{former}' AND gone IS NOT NULL)"
        )
        replacing = Deferred.fromCoroutine(
            PostgresLogArchives(database).replace(former, "logs-x", files)
        )
        await waits
        self.assertIn("not known yet", (await self.move()).problem or "")
        self.flushLoggedErrors()
        gate.callback(None)
        await replacing
        self.assertIsNone((await self.move()).problem)
        self.assertEqual(await self.records_of(LogQuery()), expected)

    async def test_taken(self) -> None:
        """An attempt that was taken cannot end; its week is written again."""
        part, written = await self.written()
        self.assertEqual(await self.records.abandoned(), ["logs-x"])
        told = await self.raised(Unavailable, self.records.finish(part, "logs-x", written))
        self.assertIn("written anew", told)
        self.assertEqual((await self.in_database(), await self.rows()), (40, 0))
        self.assertEqual((await self.move()).moved, 40)
        self.assertEqual(len(await self.lines(LogQuery())), 40)

    async def test_rows_of_an_attempt(self) -> None:
        """Rows are added little by little; nobody reads them before the end, or after a cut."""
        self.records = PostgresLogArchives(self.database, at_once=1)
        part, written = await self.written()
        cursor = await self.store.open(LogQuery())
        for _ in range(2):
            await self.raised(Busy, self.records.finish(part, "logs-x", written))
        await cursor.close()
        self.assertEqual((await self.rows(), await self.records.files()), (1, []))
        self.assertEqual(len(await self.lines(LogQuery())), 40)
        self.assertEqual((await self.move()).moved, 40)
        self.assertEqual(len(await self.records.files()), 2)
        self.assertEqual(await self.rows(), 2)
        self.assertEqual(len(await self.lines(LogQuery(issuers=frozenset({A})))), 20)


class LateTests(RecordCase):
    """Lines that come after their week was written, or is gone."""

    async def test_noted(self) -> None:
        """Only what comes after the week was read keeps it; nothing is searched for that."""
        at = self.now - 12 * 7 * DAY - 30
        part = await self.records.due(AFTER)
        assert part is not None
        await self.late(A, "exp", [at], ["before"])
        _, written = await self.written()
        await self.late(A, "exp", [self.now - 10 * 7 * DAY - 30], ["of another week"])
        await self.late(A, "exp", [at], ["after"])
        self.assertFalse(await self.records.finish(part, "logs-x", written))
        self.assertEqual(len(await self.lines(LogQuery())), 43)
        self.assertEqual((await self.move()).moved, 43)
        self.assertEqual(len(await self.lines(LogQuery())), 43)
        self.assertEqual(await self.database.query("SELECT * FROM logarchivelate"), [])

    async def test_not_watched(self) -> None:
        """A table whose late lines nobody noted stays; so does one that retention dropped."""
        part, written = await self.written()
        await self.database.execute(f"DROP TRIGGER note_late ON {part.table}")
        self.assertFalse(await self.records.finish(part, "logs-x", written))
        self.assertEqual(len(await self.lines(LogQuery())), 40)
        await self.database.execute(f"DROP TABLE {part.table}")
        self.assertFalse(await self.records.finish(part, "logs-x", written))
        self.assertEqual(len(await self.lines(LogQuery())), 20)

    async def test_a_line_under_way(self) -> None:
        """While one is being stored, its week is not begun."""
        part = await self.records.due(AFTER)
        assert part is not None
        added: Deferred[None] = Deferred()
        gate: Deferred[None] = Deferred()

        async def work(one: Any) -> None:
            await one.execute(
                f"INSERT INTO {part.table} SELECT * FROM {part.table} LIMIT 1"
            )
            added.callback(None)
            await gate

        storing = Deferred.fromCoroutine(self.database.transaction(work))
        await added
        await self.raised(Busy, self.records.due(AFTER))
        gate.callback(None)
        await storing
        self.assertEqual((await self.move()).moved, 41)

    async def test_many_weeks(self) -> None:
        """Few lines of each of 60 weeks become one file, once in a week."""
        await self.move()
        stamps = [self.now - (10 + n) * 7 * DAY for n in range(60)]
        await self.late(A, "exp", stamps, [f"late {n}" for n in range(60)], sorted(stamps))
        expected = await self.records_of(LogQuery())
        self.assertEqual((await self.move()).moved, 0)
        await self.days_go_by()
        self.assertEqual((await self.move()).moved, 60)
        self.assertEqual((len(self.parquets()), await self.in_database()), (3, 0))
        self.assertEqual(await self.records_of(LogQuery()), expected)
        await self.late(A, "exp", [stamps[0]], ["later"], [stamps[0]])
        self.assertEqual((await self.move()).moved, 0)
        self.assertEqual(await self.in_database(), 1)
        # It goes when the youngest of its weeks does.
        await self.move(retention=11 * 7)
        self.assertEqual(len(await self.records.files()), 2)

    async def test_weeks_that_never_had_a_table(self) -> None:
        """Many lines of one become a file of its own at once; what comes then waits."""
        for weeks in (30, 31):
            at = self.now - weeks * 7 * DAY
            await self.late(A, "exp", [at + n / 1000 for n in range(100)], [
                f"{weeks} {n}" for n in range(100)
            ])
        self.assertEqual((await self.move()).moved, 240)
        self.assertEqual((len(self.parquets()), await self.in_database()), (4, 0))
        await self.late(A, "exp", [at + n / 1000 for n in range(100)], ["more"] * 100)
        self.assertEqual((await self.move()).moved, 0)
        self.assertEqual(len(await self.lines(LogQuery())), 340)

    async def test_more_while_they_are_written(self) -> None:
        """Late lines that come meanwhile stay."""
        await self.move()
        at = self.now - 20 * 7 * DAY
        await self.late(A, "exp", [at], ["one"])
        await self.days_go_by()
        part, written = await self.written()
        await self.late(A, "exp", [at], ["two"])
        self.assertTrue(await self.records.finish(part, "logs-x", written))
        self.assertEqual(await self.in_database(), 1)
        self.assertEqual((await self.lines(LogQuery()))[:2], ["one", "two"])


class FarPlaceTests(ArchiveCase):
    """A server whose clock once stood in another century."""

    async def test_far_places(self) -> None:
        """Lines that were placed then, long ones too, move as others do, to the microsecond."""
        at = self.now - 12 * 7 * DAY
        await self.add(A, "exp", [at, at + 1], ["short", "x" * 100_000])
        await self.database.execute(
            "UPDATE logs SET place = '2399-05-05 05:05:05.123457Z'::timestamptz"
            " + arrival % 2 * interval '1 microsecond'"
        )
        expected = sorted(await self.lines(LogQuery()))
        self.assertEqual((await self.move()).moved, 2)
        self.assertEqual(sorted(await self.lines(LogQuery())), expected)
        table = parquet.read_table(self.parquets()[0])
        self.assertEqual(
            sorted(one.microsecond for one in table["place"].to_pylist()), [123457, 123458]
        )


class GivenUpTests(RecordCase):
    """Files that were given up stay for some days."""

    async def test_readers_go_on(self) -> None:
        """Who reads while files are written again, or given up, reads to the end."""
        await self.move()
        cursor = await self.store.open(LogQuery())
        await self.devices.forget([A], {})
        await self.move(retention=11 * 7)
        found = 0
        while block := await cursor.next_block():
            found += len(block)
        await cursor.close()
        self.assertEqual(found, 40)
        self.assertEqual(len(await self.lines(LogQuery())), 10)

    async def test_a_restored_database(self) -> None:
        """A database of yesterday finds the files it names, though a device was forgotten."""
        await self.move()
        expected = await self.records_of(LogQuery())
        names = [one.name for one in self.parquets()]
        backup = await self.database.query("SELECT id, issuer_mac, name FROM logstreams")
        await self.devices.forget([A], {})
        await self.move()
        await self.database.execute(
            "DELETE FROM logarchives WHERE name <> ALL(%s)", (names,)
        )
        await self.database.execute("UPDATE logarchives SET gone = NULL")
        await self.database.execute(
            "INSERT INTO devices (mac, name, type) VALUES (%s, 'aa', 'unknown')", (A,)
        )
        for row in backup:
            await self.database.execute(
                "INSERT INTO logstreams (id, issuer_mac, name) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING", row,
            )
        self.assertEqual(await self.records_of(LogQuery()), expected)
