"""Weeks of log lines that become files, are read with the others, and go: PostgreSQL and disks."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from pyarrow import parquet
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.system import cluster
from walt.common.errors import Busy, Conflict, LimitExceeded, Unavailable
from walt.server.adapters.archive.files import ArchiveFiles
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.log_archives import PostgresLogArchives
from walt.server.adapters.postgres.log_queries import Limits
from walt.server.adapters.postgres.logs import PostgresLogs
from walt.server.adapters.postgres.migrate import migrate
from walt.server.domain.devices.model import Device
from walt.server.domain.logs.archive import ArchiveTarget, Owner
from walt.server.domain.logs.archiving import LogArchiving
from walt.server.domain.logs.model import LogBlock, LogQuery, StreamKey
from walt.server.runtime.process import Launcher
from walt.server.runtime.workers import WorkerPool

A, B = "02:00:00:00:00:01", "02:00:00:00:00:02"
DAY = 86400.0
AFTER = 30  # days


class ArchiveCase(TestCase):
    """A database with two devices, and a directory."""

    skip = cluster.why_not()

    async def setUp(self) -> None:
        """Make both."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        self.directory = self.directory.resolve()
        self.dsn = cluster.shared().fresh()
        self.database = Database(reactor, self.dsn)
        self.addCleanup(self.database.close)
        await migrate(self.database)
        self.devices = PostgresDevices(self.database)
        await self.devices.save([Device(A, "aa", "unknown"), Device(B, "bb", "unknown")])
        self.records = PostgresLogArchives(self.database)
        self.workers = WorkerPool(reactor, Launcher(), size=1)
        self.addCleanup(self.workers.stop)
        self.names = (f"{number:08x}" for number in itertools.count(1))
        self.archive = self.files(self.target())
        self.store = PostgresLogs(self.database, archive=self.archive)
        await self.store.prepare()
        await self.store.make_partitions()
        self.batches = itertools.count(1)
        self.now = float(int(time.time()))

    def target(self) -> ArchiveTarget:
        """Return where files go."""
        return ArchiveTarget(directory=str(self.directory))

    def files(self, target: ArchiveTarget, **options: Any) -> ArchiveFiles:
        """Return an archive of a target."""
        found = ArchiveFiles(reactor, Launcher(), self.workers, target, self.dsn, **options)
        self.addCleanup(found.stop)
        return found

    async def add(
        self, mac: str, name: str, stamps: list[float], texts: list[str],
        places: list[float] | None = None,
    ) -> None:
        """Store lines, in partitions of their weeks."""
        for stamp in (min(stamps), max(stamps)):
            await self.database.execute("SELECT ensure_log_partition(to_timestamp(%s))", (stamp,))
        await self.late(mac, name, stamps, texts, places)

    async def late(
        self, mac: str, name: str, stamps: list[float], texts: list[str],
        places: list[float] | None = None,
    ) -> None:
        """Store lines where there is room for them."""
        key = StreamKey(mac, name)
        number = (await self.store.ensure_streams({key: "line"}))[key].number
        for first in range(0, len(texts), 5000):
            cut = slice(first, first + 5000)
            await self.store.insert(next(self.batches), [(number, LogBlock(
                key, "line", self.now, stamps[cut], "\n".join(texts[cut]), len(texts[cut]),
                None if places is None else places[cut],
            ))])

    def archiving(self, archive: ArchiveFiles | None = None, **options: Any) -> LogArchiving:
        """Return who moves weeks."""
        return LogArchiving(
            self.records, archive or self.archive, reactor, AFTER, options.get("retention"),
            lambda: next(self.names),
        )

    async def move(self, archive: ArchiveFiles | None = None, **options: Any) -> LogArchiving:
        """Move what is due, once."""
        moving = self.archiving(archive, **options)
        await moving._pass()
        return moving

    async def days_go_by(self) -> None:
        """Have more than a week pass since files were given up, and late lines moved."""
        await self.database.execute(
            "UPDATE logarchives SET gone = gone - interval '8 days';"
            " UPDATE logarchiveowner SET late_moved = late_moved - interval '8 days'"
        )

    async def records_of(self, query: LogQuery) -> list[tuple[float, str, str, str]]:
        """Return matching lines; their number is the one that is counted."""
        cursor = await self.store.open(query)
        found: list[tuple[float, str, str, str]] = []
        while block := await cursor.next_block():
            found += block.records()
        await cursor.close()
        self.assertEqual(await self.store.count(query), len(found))
        return found

    async def lines(self, query: LogQuery) -> list[str]:
        """Return the texts of matching lines."""
        return [line for *_, line in await self.records_of(query)]

    async def in_database(self) -> int:
        """Return how many lines the database has."""
        ((found,),) = await self.database.query("SELECT count(*) FROM logs")
        return int(found)

    def parquets(self) -> list[Path]:
        """Return the files, by name."""
        return sorted(self.directory.glob("*.parquet"))

    async def raised(self, kind: type[Exception], work: Any) -> str:
        """Return what an error of a coroutine says."""
        return str(await self.assertFailure(Deferred.fromCoroutine(work), kind))


class ArchiveTests(ArchiveCase):
    """In a directory."""

    async def filled(self) -> None:
        """Store lines of three old weeks, and of now."""
        for weeks in (12, 11, 10, 0):
            at = self.now - weeks * 7 * DAY - 60
            await self.add(A, "exp", [at + n for n in range(10)], [
                f"a {weeks} {n} é" for n in range(10)
            ])
            await self.add(B, "console", [at + n + 0.5 for n in range(10)], [
                f"b {weeks} {n}" for n in range(10)
            ])

    async def test_the_same_answers_as_before(self) -> None:
        """What was read before is read afterwards: order, filters, bounds, counts, names."""
        await self.filled()
        old = self.now - 11 * 7 * DAY
        queries = [
            LogQuery(), LogQuery(issuers=frozenset({A})), LogQuery(streams="^ex"),
            LogQuery(lines="[24] é$"), LogQuery(exclude_consoles=True),
            LogQuery(issuers=frozenset()),
            LogQuery(start=old - 61, end=old - 55), LogQuery(end=old - 56.5),
            LogQuery(start=old - 52.5), LogQuery(start=self.now - DAY), LogQuery(lines="nowhere"),
            LogQuery(issuers=frozenset({B}), start=old - 61, end=old - 55, lines="b"),
        ]
        before = [await self.records_of(query) for query in queries]
        self.assertEqual(len(before[0]), 80)
        moved = await self.move()
        self.assertEqual((moved.moved, moved.problem), (60, None))
        self.assertEqual(await self.in_database(), 20)
        self.assertEqual(len(self.parquets()), 3)
        for query, expected in zip(queries, before, strict=True):
            self.assertEqual(await self.records_of(query), expected, query)
        self.assertEqual(await self.archive.problems(
            await self.records.files(), await self.records.owner()
        ), [])
        self.assertEqual((await self.move()).moved, 0)

    async def test_lines_that_alternate(self) -> None:
        """Late lines, displaced ones and those of the archive come in one order."""
        chance = random.Random(7)
        at = self.now - 10 * 7 * DAY
        stamps = [at + n / 1000 for n in sorted(chance.sample(range(100_000), 6000))]
        sizes = (1, 50, 3, 20_000, 200_000)
        texts = [
            f"{n} {'x' * chance.choice(sizes if n % 250 < 2 else sizes[:3])}" for n in range(6000)
        ]
        first, second = slice(0, 6000, 2), slice(1, 6000, 2)
        await self.add(A, "exp", stamps[first], texts[first])
        # Its clock went back: these come after what was sent before, in the order of arrival.
        displaced = [at + 50.0, at + 20.0]
        await self.add(B, "b", displaced, ["d0", "d1"], [self.now - 9 * 7 * DAY, self.now - 60])
        await self.move()
        self.assertEqual(await self.in_database(), 0)
        await self.late(A, "exp", stamps[second], texts[second])
        queries = [
            LogQuery(), LogQuery(start=at + 10, end=at + 60), LogQuery(lines="7"),
            LogQuery(streams="b"), LogQuery(start=at + 30),
        ]
        found = [await self.lines(query) for query in queries]
        self.assertEqual(found[0], [*texts, "d0", "d1"])
        self.assertEqual(found[3], ["d0", "d1"])
        # They become a file, once in seven days.
        self.assertEqual((await self.move()).moved, 0)
        await self.days_go_by()
        self.assertEqual((await self.move()).moved, 3000)
        self.assertEqual(await self.in_database(), 0)
        for query, expected in zip(queries, found, strict=True):
            self.assertEqual(await self.lines(query), expected, query)

    async def test_streams_go_on(self) -> None:
        """A stream whose lines are all archived keeps its id, and the place of its end."""
        await self.add(A, "exp", [self.now - 70 * DAY], ["one"], [self.now - 5])
        before = await self.store.ensure_streams({StreamKey(A, "exp"): "line"})
        await self.move()
        self.assertEqual(await self.in_database(), 0)
        self.assertEqual(await self.store.ensure_streams({StreamKey(A, "exp"): "line"}), before)

    async def test_forgotten_devices(self) -> None:
        """Their lines are gone at once, and from the files with the next pass."""
        await self.filled()
        await self.move()
        before = self.parquets()
        await self.devices.forget([A], {})
        self.assertEqual(
            {line[0] for line in await self.lines(LogQuery())}, {"b"}
        )
        self.assertEqual(await self.lines(LogQuery(end=self.now - 80 * DAY, lines="a")), [])
        await self.move()
        self.assertEqual(len(self.parquets()), 6)
        await self.days_go_by()
        await self.move()
        self.assertFalse(any(one.exists() for one in before))
        self.assertEqual(len(self.parquets()), 3)
        for one in self.parquets():
            self.assertEqual(set(parquet.read_table(one)["mac"].to_pylist()), {B})
        self.assertEqual(len(await self.lines(LogQuery())), 40)
        manifest = json.loads((self.directory / "manifest.json").read_text())
        self.assertEqual(sorted(manifest["files"]), [one.name for one in self.parquets()])

        # One whose lines are kept has them under its name, until that is forgotten.
        await self.devices.forget([B], {B: "bb"})
        kept = LogQuery(issuers=frozenset({"bb"}))
        self.assertEqual(len(await self.lines(kept)), 40)
        self.assertEqual((await self.records_of(kept))[0][1], "bb")
        await self.store.forget_former("bb")
        self.assertEqual(await self.lines(LogQuery()), [])
        await self.move()
        await self.days_go_by()
        await self.move()
        self.assertEqual(self.parquets(), [])

    async def test_retention(self) -> None:
        """Files whose weeks are too old for logs.retention are removed."""
        await self.filled()
        await self.move()
        await self.move(retention=11 * 7)
        self.assertEqual(len(await self.lines(LogQuery())), 60)
        await self.days_go_by()
        await self.move()
        self.assertEqual(len(self.parquets()), 2)
        self.assertEqual(len(await self.lines(LogQuery())), 60)

    async def test_a_reader_keeps_its_week(self) -> None:
        """A week that somebody reads is not dropped meanwhile; what was read stays whole."""
        await self.filled()
        cursor = await self.store.open(LogQuery())
        part = await self.records.due(AFTER)
        assert part is not None
        await self.records.begin("logs-x")
        written = await self.archive.write(part, "logs-x", await self.records.owner())
        await self.raised(Busy, self.records.finish(part, "logs-x", written))
        found = 0
        while block := await cursor.next_block():
            found += len(block)
        await cursor.close()
        self.assertEqual(found, 80)
        self.assertTrue(await self.records.finish(part, "logs-x", written))
        self.assertEqual(len(await self.lines(LogQuery())), 80)

    async def test_lines_that_come_while_a_week_is_written(self) -> None:
        """The week is not dropped; it is written again with them."""
        await self.filled()
        part = await self.records.due(AFTER)
        assert part is not None
        await self.records.begin("logs-x")
        written = await self.archive.write(part, "logs-x", await self.records.owner())
        await self.late(A, "exp", [self.now - 12 * 7 * DAY - 55], ["late"])
        self.assertFalse(await self.records.finish(part, "logs-x", written))
        self.assertEqual(len(await self.lines(LogQuery())), 81)
        await self.move()
        self.assertEqual(len(await self.lines(LogQuery())), 81)
        self.assertEqual(len(self.parquets()), 3)
        self.assertEqual([one for one in self.parquets() if "logs-x" in one.name], [])

    async def test_cuts(self) -> None:
        """Whatever step is the last one, the next pass ends with each line in one place."""
        await self.filled()
        expected = await self.records_of(LogQuery())
        for step in ("begin", "write", "finish"):

            async def cut(*words: Any, former: Any = None, late: bool = step != "finish") -> Any:
                """Do it, or not, and end."""
                if late:
                    await former(*words)
                raise KeyboardInterrupt

            owner: Any = self.archive if step == "write" else self.records
            with_it = getattr(owner, step)
            patch = self.patch(
                owner, step, lambda *words, former=with_it: cut(*words, former=former)
            )
            await self.assertFailure(
                Deferred.fromCoroutine(self.archiving()._pass()), KeyboardInterrupt
            )
            patch.restore()
            self.assertEqual(await self.records_of(LogQuery()), expected, step)
        (prefix,) = await self.records.abandoned()
        half = self.directory / f".{prefix}-001.parquet.partial"
        half.write_bytes(b"half")
        await self.move()
        self.assertEqual(await self.records_of(LogQuery()), expected)
        self.assertEqual(await self.in_database(), 20)
        self.assertEqual(len(self.parquets()), 3)
        self.assertEqual(await self.records.abandoned(), [])
        manifest = json.loads((self.directory / "manifest.json").read_text())
        self.assertEqual(sorted(manifest["files"]), [one.name for one in self.parquets()])
        self.assertFalse(half.exists())

    async def test_damage(self) -> None:
        """A file that is missing, cut or changed is named to who reads; the rest is read."""
        await self.filled()
        await self.move()
        oldest = self.parquets()[0]
        whole = oldest.read_bytes()
        recent = LogQuery(start=self.now - 11 * 7 * DAY - DAY)
        middle = len(whole) // 2
        changed = bytearray(whole)
        for position in range(middle - 200, middle):
            changed[position] ^= 0xFF
        for damage, why in (
            (None, "is missing"), (whole[:middle], "octets, it had"),
            (bytes(changed), "001.parquet:"),
        ):
            if damage is None:
                oldest.rename(self.directory / "aside")
            else:
                oldest.write_bytes(damage)
            told = await self.raised(Unavailable, self.lines(LogQuery()))
            self.assertIn(f"{oldest.name}", told)
            self.assertIn(why, told)
            self.assertIn("walt help show log-archive", told)
            self.assertEqual(len(await self.lines(recent)), 60)
        (self.directory / "aside").rename(oldest)
        self.assertEqual(len(await self.lines(LogQuery())), 80)

    async def test_no_archive(self) -> None:
        """A directory that is away loses nothing: weeks stay, readers are told, it goes on."""
        await self.filled()
        await self.move()
        self.directory.rename(self.directory.with_name("away"))
        await self.add(A, "exp", [self.now - 9 * 7 * DAY], ["more"])
        told = (await self.move()).problem
        self.assertIn(str(self.directory), told or "")
        self.flushLoggedErrors()
        self.assertEqual(await self.in_database(), 21)
        await self.raised(Unavailable, self.lines(LogQuery()))
        # An empty directory in its place (a disk that is not mounted) is not taken for it.
        self.directory.mkdir()
        found = await self.archive.problems(
            await self.records.files(), await self.records.owner()
        )
        self.assertIn("manifest.json of the log archive", found[0])
        self.assertIn("manifest.json", (await self.move()).problem or "")
        self.assertEqual(list(self.directory.iterdir()), [])
        shutil.rmtree(self.directory)
        self.directory.with_name("away").rename(self.directory)
        self.assertIsNone((await self.move()).problem)
        self.assertEqual(len(await self.lines(LogQuery())), 81)
        unset = PostgresLogs(self.database)
        told = await self.raised(Unavailable, unset.open(LogQuery()))
        self.assertIn("logs.archive", told)
        cursor = await unset.open(LogQuery(start=self.now - DAY))
        self.assertEqual(len(await cursor.next_block()), 20)
        await cursor.close()

    async def test_another_platform(self) -> None:
        """Files of another platform are never touched."""
        await self.filled()
        (self.directory / "manifest.json").write_text(json.dumps(
            {"format": 1, "platform": "another", "files": {}}
        ))
        self.assertIn("another platform", (await self.move()).problem or "")
        self.assertEqual(self.parquets(), [])
        (self.directory / "manifest.json").write_text("{")
        self.assertIn("damaged", (await self.move()).problem or "")
        self.flushLoggedErrors()
        self.assertEqual(await self.in_database(), 80)
        owner = await self.records.owner()
        (self.directory / "manifest.json").unlink()
        self.assertEqual(await self.archive.problems([], owner), [])
        self.assertEqual(list(self.directory.iterdir()), [])
        self.assertIsNone((await self.move()).problem)
        await self.raised(Conflict, self.archive.remove([], ["logs-x"], Owner("x", False)))

    async def test_several_files_of_a_week(self) -> None:
        """A week that is too large for one file has several."""
        chance = random.Random(3)
        at = self.now - 70 * DAY
        texts = [chance.randbytes(300).hex() for _ in range(120_000)]
        for first in range(0, 120_000, 10_000):
            some = range(first, first + 10_000)
            await self.add(A, "exp", [at + n / 1000 for n in some], [texts[n] for n in some])
        await self.move(self.files(self.target(), file_size=1 << 20))
        self.assertEqual(len(self.parquets()), 5)
        self.assertEqual(await self.lines(LogQuery()), texts)
        window = LogQuery(start=at + 70, end=at + 70.1)
        self.assertEqual(await self.lines(window), texts[70_001:70_100])

    async def test_endless_search(self) -> None:
        """A search that takes too long is given up; so are too many readers at once."""
        await self.filled()
        await self.move()
        self.store = PostgresLogs(
            self.database, Limits(), self.files(self.target(), answer=0.0001)
        )
        told = await self.raised(LimitExceeded, self.lines(LogQuery()))
        self.assertIn("narrow the range", told)
        self.store = PostgresLogs(self.database, Limits(count=0.0001), self.archive)
        told = await self.raised(LimitExceeded, self.store.count(LogQuery(lines="a")))
        self.assertIn("takes too long", told)
        self.store = PostgresLogs(self.database, archive=self.archive)
        cursors = [await self.store.open(LogQuery(reader=one)) for one in "aaabbbcc"]
        await self.raised(LimitExceeded, self.store.open(LogQuery(reader="d")))
        for cursor in cursors:
            await cursor.close()
        self.assertEqual(len(await self.lines(LogQuery())), 80)

    async def test_a_reader_that_is_killed(self) -> None:
        """Who reads is told to try again; what was there is there."""
        at = self.now - 70 * DAY
        texts = [str(n) for n in range(30_000)]
        await self.add(A, "exp", [at + n / 1000 for n in range(30_000)], texts)
        await self.move()
        cursor = await self.store.open(LogQuery())
        self.assertEqual(len(await cursor.next_block()), 200)
        (child,) = self.archive._children
        os.kill(child.transport.pid, signal.SIGKILL)

        async def rest() -> None:
            while await cursor.next_block():
                pass

        self.assertIn("try again", await self.raised(Unavailable, rest()))
        self.assertEqual(await self.lines(LogQuery()), texts)

    async def test_other_programs(self) -> None:
        """DuckDB reads the files as they are."""
        import duckdb

        await self.filled()
        await self.move()
        found = duckdb.sql(
            "SELECT issuer, stream, count(*), min(epoch_us(timestamp)), max(line)"
            f" FROM read_parquet('{self.directory}/*.parquet') GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        at = round((self.now - 12 * 7 * DAY - 60) * 1e6)
        self.assertEqual(found, [
            ("aa", "exp", 30, at, "a 12 9 é"), ("bb", "console", 30, at + 500_000, "b 12 9"),
        ])
        window = duckdb.sql(
            f"SELECT line FROM read_parquet('{self.directory}/*.parquet')"
            " WHERE timestamp < to_timestamp(?) AND issuer = 'aa' ORDER BY place, arrival",
            params=[at / 1e6 + 2],
        ).fetchall()
        self.assertEqual(window, [("a 12 0 é",), ("a 12 1 é",)])


