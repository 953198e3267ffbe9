"""What every log store does: the fake and PostgreSQL."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.fakes.log_store import FakeLogStore
from tests.system import cluster
from walt.common.errors import Busy, Invalid, LimitExceeded
from walt.server.adapters.postgres import migrate as schema
from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.log_cursor import LONG
from walt.server.adapters.postgres.log_queries import Limits
from walt.server.adapters.postgres.logs import PostgresLogs
from walt.server.adapters.postgres.migrate import migrate, scripts
from walt.server.domain.devices.model import Device
from walt.server.domain.logs.model import LogBlock, LogQuery, StreamKey, StreamMode
from walt.server.domain.logs.order import BEGINNING, placed

A, B = "02:00:00:00:00:01", "02:00:00:00:00:02"


def block(
    number: int, moment: float, text: str, stamps: list[float] | None = None
) -> tuple[int, LogBlock]:
    """Return a block of a stream."""
    key = StreamKey(A, "exp")
    return number, LogBlock(key, "line", moment, stamps, text, text.count("\n") + 1)


async def numbered(store: Any, streams: Mapping[StreamKey, StreamMode]) -> dict[StreamKey, int]:
    """Create streams, return their ids."""
    found = await store.ensure_streams(streams)
    return {key: stream.number for key, stream in found.items()}


class LogStoreContract:
    """To be mixed with a case whose `make` returns a store that knows issuers A and B."""

    make: Any
    assertEqual: Any

    async def lines(self, store: Any, query: LogQuery) -> list[str]:
        """Return the matching lines, block by block."""
        cursor = await store.open(query)
        found: list[str] = []
        while block := await cursor.next_block():
            found += block.texts()
        await cursor.close()
        await cursor.close()
        self.assertEqual(await store.count(query), len(found))
        return found

    async def filled(self) -> Any:
        """Return a store with a few lines."""
        store = await self.make()
        ids = await numbered(store, {
            StreamKey(A, "exp"): "line", StreamKey(B, "exp2"): "line",
            StreamKey(B, "virtualconsole"): "chunk",
        })
        self.now = now = float(int(time.time()))
        rows = [
            (ids[StreamKey(A, "exp")], now - 50, "one"),
            (ids[StreamKey(B, "exp2")], now - 40, "two (2)"),
            (ids[StreamKey(B, "virtualconsole")], now - 30, "b'three'"),
            (ids[StreamKey(A, "exp")], now - 60, "zéro\\n ' %s"),
        ]
        await store.insert(1, [block(*row) for row in rows])
        return store

    async def test_order_and_filters(self) -> None:
        """By time; issuers, streams, lines, bounds (exclusive), consoles."""
        store = await self.filled()
        now = self.now
        for query, expected in (
            (LogQuery(), ["zéro\\n ' %s", "one", "two (2)", "b'three'"]),
            (LogQuery(issuers=frozenset({A})), ["zéro\\n ' %s", "one"]),
            (LogQuery(issuers=frozenset()), []),
            (LogQuery(streams="^exp$"), ["zéro\\n ' %s", "one"]),
            (LogQuery(streams="2|console"), ["two (2)", "b'three'"]),
            (LogQuery(lines=r"\([0-9]\)$"), ["two (2)"]),
            (LogQuery(exclude_consoles=True), ["zéro\\n ' %s", "one", "two (2)"]),
            (LogQuery(start=now - 50, end=now - 30), ["two (2)"]),
            (LogQuery(lines="'"), ["zéro\\n ' %s", "b'three'"]),
        ):
            self.assertEqual(await self.lines(store, query), expected, query)

    async def test_expressions_mean_the_same(self) -> None:
        """Stored lines are found by what finds live ones, or the expression is refused."""
        store = await self.make()
        key = StreamKey(A, "exp")
        ids = await numbered(store, {key: "line"})
        lines = [
            "atb", "a\tb", "axxb", "a.b", "a\\b", "{1", '{"a": 1}', "x{,3}", "aaa", "a" * 300, "]",
            "é", "É", "a-b", "a_b", "(a)", "a|b", "^a$", "aA", "", "[x]", "\r", "a*",
        ]
        now = time.time()
        await store.insert(1, [block(ids[key], now - 50 + n / 10, one)
                               for n, one in enumerate(lines)])
        for text in (
            "a\tb", r"a\tb", "a.*?b", "a.*b", r"[\.]", "[.]", r"[\]]", "[]]", r"[^\t]b", '{"', "{1",
            r"\{1", "x{,3}", "a{2}", "a{2,}", "a{255}", "a{256}", "a{2", "a++", "a**", "^*", "*a",
            "(*a)", "[[:alpha:]]", "^[^[:alpha:]]$", "[[:word:]]", "[[.a.]]", "[[=a=]]", r"\_",
            r"\-",
            r"\(a\)", "()", "(|a)b", "a|", r"a\x41", r"\101", r"\e", r"\n", "[a-z]+_", "[[]x",
            "^$", "$", "^.$", "(a|b){2}", "é", "(?i)A", "a{1,2}{2}", "***=a", "a$*", "[a-]b",
            r"\^a\$", "a$b",
        ):
            try:
                query = LogQuery(lines=text)
            except Invalid:
                continue
            live = [one for one in lines if query.matcher().found_in(one)]
            self.assertEqual(await self.lines(store, query), live, text)

    async def test_streams_keep_their_id(self) -> None:
        """Asking again gives the same id."""
        store = await self.make()
        key = StreamKey(A, "exp")
        first = await numbered(store, {key: "line"})
        self.assertEqual(await numbered(store, {key: "line"}), first)

    async def test_unknown_issuer(self) -> None:
        """A device that is not there gets no stream."""
        store = await self.make()
        self.assertEqual(await numbered(store, {StreamKey("gone", "exp"): "line"}), {})

    async def test_many(self) -> None:
        """Thousands of lines in one go, in order."""
        store = await self.make()
        ids = await numbered(store, {StreamKey(A, "exp"): "line"})
        one = ids[StreamKey(A, "exp")]
        now = time.time()
        texts = [f"{number:05}" for number in range(3000)]
        stamps = [now + n / 1e4 for n in range(3000)]
        await store.insert(1, [block(one, now, "\n".join(texts), stamps)])
        self.assertEqual(await self.lines(store, LogQuery()), texts)

    async def test_blocks(self) -> None:
        """Blocks with one time for all lines, with one each; empty lines; texts kept exactly."""
        store = await self.make()
        ids = await numbered(store, {StreamKey(A, "exp"): "line"})
        one = ids[StreamKey(A, "exp")]
        now = float(int(time.time()))
        odd = "\\x00 {\"a\"} NULL é \\ ' %s \r \u2028 "
        await store.insert(1, [
            block(one, now - 9, f"\n\n{odd}"),
            block(one, now, "\nlast", [now - 5, now - 4]),
            block(one, now - 3, ""),
        ])
        self.assertEqual(await self.lines(store, LogQuery()), ["", "", odd, "", "last", ""])
        self.assertEqual(await self.lines(store, LogQuery(start=now - 4.5)), ["last", ""])

    async def test_a_batch_is_stored_once(self) -> None:
        """The same batch again, whose answer was lost, changes nothing; the next one is stored."""
        store = await self.make()
        ids = await numbered(store, {StreamKey(A, "exp"): "line"})
        one = ids[StreamKey(A, "exp")]
        for batch, text in ((1, "one"), (1, "one"), (2, "two"), (1, "one"), (2, "two")):
            await store.insert(batch, [block(one, time.time() - 1, text)])
        self.assertEqual(await self.lines(store, LogQuery()), ["one", "two"])

    async def test_order_of_arrival(self) -> None:
        """Lines of one time come back as they arrived, those of several blocks and batches too."""
        store = await self.make()
        ids = await numbered(store, {StreamKey(A, "exp"): "line", StreamKey(B, "exp2"): "line"})
        now = float(int(time.time())) - 5
        texts = [
            f"{number:05}" + ("x" * 3000 if number % 7 == 0 else "") for number in range(3000)
        ]
        blocks = [
            block(number, now, "\n".join(texts[first:first + 100]), [now] * 100 if first else None)
            for first, number in zip(range(0, 3000, 100), [*ids.values()] * 15, strict=True)
        ]
        for batch in range(10):
            await store.insert(batch + 1, blocks[3 * batch:3 * batch + 3])
        self.assertEqual(await self.lines(store, LogQuery()), texts)
        self.assertEqual(await self.lines(store, LogQuery(start=now - 1, end=now + 1)), texts)

    async def test_order_of_places(self) -> None:
        """Lines with a time before that of an earlier one of their stream come after it.

        They are found in the ranges of their times.
        """
        store = await self.make()
        now = float(int(time.time())) - 100
        last = dict.fromkeys((StreamKey(A, "exp"), StreamKey(B, "exp2")), BEGINNING)
        for batch, (key, stamps) in enumerate((
            (StreamKey(A, "exp"), [10.0, 20.0, 1.0, 15.0, 30.0]),
            (StreamKey(B, "exp2"), [2.0, 20.0, 25.0]),
            (StreamKey(A, "exp"), [5.0, 40.0]),
        )):
            stream = (await store.ensure_streams({key: "line"}))[key]
            self.assertEqual(stream.last, last[key])
            text = "\n".join(f"{key.name[-1]}{stamp:g}" for stamp in stamps)
            whole = block(0, now, text, [now + stamp for stamp in stamps])[1]
            in_place, last[key] = placed(whole, stream.last)
            await store.insert(batch + 1, [(stream.number, in_place)])
        for start, end, expected in (
            (None, None, "22 p10 p20 p1 p15 220 225 p30 p5 p40"),
            (None, 22, "22 p10 p20 p1 p15 220 p5"), (0, 12, "22 p10 p1 p5"), (4, 6, "p5"),
            (14, 31, "p20 p15 220 225 p30"), (14, None, "p20 p15 220 225 p30 p40"),
        ):
            query = LogQuery(
                start=None if start is None else now + start, end=None if end is None else now + end
            )
            self.assertEqual(await self.lines(store, query), expected.split(), (start, end))

    async def test_old_lines(self) -> None:
        """A line of long ago is stored and found too."""
        store = await self.make()
        ids = await numbered(store, {StreamKey(A, "exp"): "line"})
        await store.insert(1, [block(ids[StreamKey(A, "exp")], 1e9, "old")])
        self.assertEqual(await self.lines(store, LogQuery(end=1.1e9)), ["old"])


class FakeLogStoreTests(LogStoreContract, TestCase):
    async def make(self) -> FakeLogStore:
        """Return an empty fake."""
        store = FakeLogStore()
        store.unknown.add("gone")
        return store


class HeldDatabase(Database):
    """Transactions that wait before their commit for `gate`, and tell when they `arrived`."""

    arrived: Deferred[None]
    gate: Deferred[None]

    async def transaction(self, work: Callable[[Transaction], Awaitable[Any]]) -> Any:
        """Run a transaction."""

        async def held(one: Transaction) -> Any:
            result = await work(one)
            if not self.arrived.called:
                self.arrived.callback(None)
                await self.gate
            return result

        return await super().transaction(held)


class PostgresLogsTests(LogStoreContract, TestCase):
    skip = cluster.why_not()

    async def make_database(self) -> None:
        """Make a database with two devices."""
        self.dsn = cluster.shared().fresh()
        self.database = Database(reactor, self.dsn)
        self.addCleanup(self.database.close)
        await migrate(self.database)
        await PostgresDevices(self.database).save(
            [Device(A, "aa", "unknown"), Device(B, "bb", "unknown")]
        )

    async def make(self) -> PostgresLogs:
        """Return a store over a new database with two devices."""
        await self.make_database()
        store = PostgresLogs(self.database)
        for _ in range(2):
            await store.prepare()
            await store.make_partitions()
        return store

    async def test_order_after_a_restart(self) -> None:
        """Another server goes on after the lines of the one before."""
        now = time.time() - 1
        store = await self.filled()
        key = StreamKey(A, "exp")
        for turn in range(3):
            number, last = (await store.ensure_streams({key: "line"}))[key]
            await store.insert(turn + 2, [
                (number, placed(block(0, now, f"{turn} {text}")[1], last)[0]) for text in "ab"
            ])
            store = PostgresLogs(self.database)
            await store.prepare()
        expected = [f"{turn} {text}" for turn in range(3) for text in "ab"]
        self.assertEqual(await self.lines(store, LogQuery(start=now - 1)), expected)

    async def test_lines_of_old_servers(self) -> None:
        """They have the order of their times, and that of their arrival for one time."""
        self.patch(schema, "scripts", lambda: [one for one in scripts() if one[0] < 6])
        await self.make_database()
        now = float(int(time.time()))
        await self.database.execute(
            "SELECT ensure_log_partition(now()); INSERT INTO logstreams (issuer_mac, name)"
            " VALUES (%s, 'exp');"
            " INSERT INTO logs (stream_id, timestamp, line) SELECT 1, to_timestamp(%s - n / 100), n"
            " FROM generate_series(1, 1000) n", (A, now),
        )
        self.patch(schema, "scripts", scripts)
        await migrate(self.database)
        store = PostgresLogs(self.database)
        await store.prepare()
        await store.make_partitions()
        old = [str(n) for hundred in range(10, -1, -1) for n in range(1, 1001)
               if n // 100 == hundred]
        number, last = (await store.ensure_streams({StreamKey(A, "exp"): "line"}))[
            StreamKey(A, "exp")
        ]
        self.assertEqual(last, now)
        await store.insert(1, [block(number, now, "new")])
        self.assertEqual(await self.lines(store, LogQuery()), [*old, "new"])

    async def test_refused_lines(self) -> None:
        """What PostgreSQL takes in no case is Invalid; the rest goes on."""
        store = await self.make()
        long = "".join(chr(random.randrange(0x10000, 0x20000)) for _ in range(1000))
        key = StreamKey(A, long)
        await self.assertFailure(
            Deferred.fromCoroutine(store.ensure_streams({key: "line"})), Invalid
        )
        ids = await numbered(store, {StreamKey(A, "exp"): "line"})
        one = ids[StreamKey(A, "exp")]
        for bad in ("NUL \0", "surrogate \ud800"):
            await self.assertFailure(
                Deferred.fromCoroutine(store.insert(1, [block(one, time.time() - 1, bad)])),
                Invalid,
            )
        await self.assertFailure(
            Deferred.fromCoroutine(store.insert(1, [block(one, 0, "time", [1e300])])), Invalid
        )
        await store.insert(1, [block(one, time.time() - 1, "good")])
        self.assertEqual(await self.lines(store, LogQuery()), ["good"])

    async def test_refused_expressions(self) -> None:
        """What PostgreSQL does not take is Invalid, and the connection stays usable."""
        store = await self.filled()
        for bad in ("(", "a{999999}"):
            query = LogQuery()
            object.__setattr__(query, "lines", bad)  # it would be refused before it gets here
            for asked in (store.count(query), store.open(query)):
                try:
                    await asked
                except Invalid:
                    continue
                raise AssertionError(f"{bad} was accepted")
        self.assertEqual(await store.count(LogQuery()), 4)

    async def test_retention(self) -> None:
        """Old partitions are dropped, recent ones stay."""
        store = await self.filled()
        await self.database.execute("SELECT ensure_log_partition('2020-01-08')")
        ids = await numbered(store, {StreamKey(A, "exp"): "line"})
        one = ids[StreamKey(A, "exp")]
        await store.insert(2, [block(one, 1578500000.0, "2020"), block(one, 1e9, "2001")])
        self.assertEqual(await store.count(LogQuery()), 6)
        await store.drop_older_than(30)
        self.assertEqual(await store.count(LogQuery()), 4)

    async def test_forgotten_device(self) -> None:
        """Its lines vanish at once, and are deleted little by little; a late batch brings none."""
        store = await self.filled()
        ids = await numbered(store, {StreamKey(A, "exp"): "line", StreamKey(B, "b"): "line"})
        one = ids[StreamKey(A, "exp")]
        text = "\n".join(map(str, range(1000)))
        for batch in range(2, 12):
            stamps = [self.now - 100 + batch * 5 + number / 1000 for number in range(1000)]
            await store.insert(batch, [block(one, self.now, text, stamps)])
        await PostgresDevices(self.database).forget([A], {})
        self.assertEqual(await self.lines(store, LogQuery()), ["two (2)", "b'three'"])
        kept = block(ids[StreamKey(B, "b")], self.now, "kept")
        await store.insert(12, [block(one, self.now, "late"), kept])
        counts = []
        hasty = PostgresLogs(self.database, Limits(last_batches=0.0))
        while await hasty.remove_forgotten(3000):
            counts.append((await self.database.query("SELECT count(*) FROM logs"))[0][0])
        self.assertEqual(counts, [10_005 - 3001, 10_005 - 6002, 10_005 - 9003, 3, 3])
        self.assertEqual(await self.database.query("SELECT * FROM logremovals"), [])

    async def test_kept_lines(self) -> None:
        """Lines of a forgotten device are kept under its name, until that is forgotten."""
        store = await self.filled()
        devices, key = PostgresDevices(self.database), StreamKey(A, "exp")
        self.assertEqual(await store.former_issuers(), [])
        for turn, mac in enumerate((A, B)):
            one = (await numbered(store, {key._replace(issuer=mac): "line"}))[
                key._replace(issuer=mac)
            ]
            await devices.forget([mac], {mac: "aa"})
            # A batch that was under way is no loss either.
            await store.insert(turn + 2, [block(one, self.now - 20 + turn, f"late {turn}")])
        self.assertEqual(await store.former_issuers(), ["aa"])
        kept = LogQuery(issuers=frozenset({"aa"}))
        lines = ["zéro\\n ' %s", "one", "two (2)", "b'three'", "late 0", "late 1"]
        self.assertEqual(await self.lines(store, kept), lines)
        cursor = await store.open(kept)
        self.assertEqual({issuer for issuer, _ in (await cursor.next_block()).sources}, {"aa"})
        await cursor.close()

        # The same machine again, with the name it had: its lines are its own.
        await devices.save([Device(A, "aa", "unknown")])
        one = (await numbered(store, {key: "line"}))[key]
        await store.insert(4, [block(one, self.now, "new")])
        self.assertEqual(await self.lines(store, kept), lines)
        self.assertEqual(await self.lines(store, LogQuery(issuers=frozenset({A}))), ["new"])
        self.assertEqual(
            await self.lines(store, LogQuery(issuers=frozenset({A, "aa"}))), [*lines, "new"]
        )
        await devices.forget([A], {})
        self.assertEqual(await self.lines(store, LogQuery()), lines)
        await store.forget_former("aa")
        self.assertEqual(await store.former_issuers(), [])
        self.assertEqual(await self.lines(store, LogQuery()), [])
        hasty = PostgresLogs(self.database, Limits(last_batches=0.0))
        while await hasty.remove_forgotten(3000):
            pass
        self.assertEqual(await self.database.query("SELECT count(*) FROM logs"), [(0,)])

    async def test_forgetting_locks_nobody_out(self) -> None:
        """Others store lines while a device is being forgotten, and while its lines go."""
        store = await self.filled()
        ids = await numbered(store, {StreamKey(A, "exp"): "line", StreamKey(B, "b"): "line"})
        other = ids[StreamKey(B, "b")]
        held = HeldDatabase(reactor, self.dsn)
        self.addCleanup(held.close)
        batches = iter(range(2, 100))

        async def beside(transaction: Coroutine[Any, Any, Any]) -> None:
            """Store lines between the last statement of a transaction and its commit."""
            held.arrived, held.gate = Deferred(), Deferred()
            running = Deferred.fromCoroutine(transaction)
            await held.arrived
            await store.insert(next(batches), [block(other, self.now, "beside")])
            await numbered(store, {StreamKey(B, f"b{next(batches)}"): "line"})
            self.assertFalse(running.called)
            held.gate.callback(None)
            await running

        await beside(PostgresDevices(held).forget([A], {}))
        await beside(PostgresLogs(held).remove_forgotten(1000))
        self.assertEqual(
            await self.lines(store, LogQuery()), ["two (2)", "b'three'", "beside", "beside"]
        )

    async def test_clock_that_had_jumped(self) -> None:
        """Lines of a week without partition are kept; they move when it is made."""
        store = await self.filled()
        one = (await numbered(store, {StreamKey(A, "exp"): "line"}))[StreamKey(A, "exp")]
        month = self.now + 40 * 86400
        await store.insert(2, [block(one, month, "from the future"), block(one, 1e9, "old")])
        for day in (month, 1e9, month + 7 * 86400):
            await self.database.execute("SELECT ensure_log_partition(to_timestamp(%s))", (day,))
        self.assertEqual(await self.database.query("SELECT count(*) FROM logs_default"), [(0,)])
        found = await self.lines(store, LogQuery(issuers=frozenset({A})))
        self.assertEqual(found, ["old", "zéro\\n ' %s", "one", "from the future"])

    async def test_upkeep_waits_for_nobody(self) -> None:
        """While a reader holds the tables, upkeep gives up at once; lines go on coming in."""
        store = await self.filled()
        await self.database.execute("SELECT ensure_log_partition('2020-01-08')")
        reader = await store.open(LogQuery())
        await reader.next_block()
        await self.assertFailure(Deferred.fromCoroutine(store.drop_older_than(30)), Busy)
        await reader.close()
        await store.drop_older_than(30)

    async def test_endless_search(self) -> None:
        """A search is bounded in time; it ends when nobody waits for it any more."""
        store = await self.filled()
        one = (await numbered(store, {StreamKey(A, "exp"): "line"}))[StreamKey(A, "exp")]
        # Each character of this text leads to another of 2^16 states.
        letters = "".join(random.Random(1).choices("ab", k=50_000))
        await store.insert(2, [block(one, self.now, "\n".join([letters] * 100))])
        slow = LogQuery(lines="(a|b)*a(a|b){16}c")
        hasty = PostgresLogs(self.database, Limits(count=0.3, search=0.3))
        await self.assertFailure(Deferred.fromCoroutine(hasty.count(slow)), LimitExceeded)
        cursor = await hasty.open(slow)
        await self.assertFailure(Deferred.fromCoroutine(cursor.next_block()), LimitExceeded)
        self.assertEqual(await store.count(LogQuery()), 104)
        counting = await store.open(slow)
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'active' AND pid <> pg_backend_pid()"
        )

        async def until(count: int) -> None:
            for _ in range(300):
                if await self.database.query(running) == [(count,)]:
                    return
                await deferLater(reactor, 0.1, lambda: None)
            raise AssertionError(f"there are never {count} searches")

        self.addCleanup(lambda: Deferred.fromCoroutine(counting.close()))
        await until(1)
        await counting.close()
        await until(0)

    async def test_long_lines(self) -> None:
        """A reader gets few lines at a time when they are long, and very long ones alone."""
        store = await self.filled()
        one = (await numbered(store, {StreamKey(A, "exp"): "line"}))[StreamKey(A, "exp")]
        await store.insert(2, [block(one, self.now, "\n".join(["x" * 10_000] * 300))])
        cursor = await store.open(LogQuery())
        counts = []
        while found := await cursor.next_block():
            counts.append(len(found))
        await cursor.close()
        self.assertEqual((counts[0], max(counts[1:]), sum(counts)), (200, 53, 304))

    async def test_very_long_lines(self) -> None:
        """They come in their order, whatever is between them."""
        store = await self.filled()
        one = (await numbered(store, {StreamKey(A, "exp"): "line"}))[StreamKey(A, "exp")]
        sizes = [3, LONG + 1, 70_000, LONG, 0, 1 << 20, 5, 5, 20_000]
        lines = [f"{number}é" * (size // 3) for number, size in enumerate(sizes)]
        await store.insert(2, [block(one, self.now + 1, "\n".join(lines))])
        self.assertEqual((await self.lines(store, LogQuery()))[4:], lines)
        self.assertEqual(await self.lines(store, LogQuery(lines="^[158]é")), [
            lines[number] for number in (1, 5, 8)
        ])

    async def test_more_streams_than_are_listed(self) -> None:
        """A search finds the same lines whether it is given the numbers of streams or not."""
        store = await self.filled()
        unlisted = PostgresLogs(self.database, Limits(listed=1))
        for query in (
            LogQuery(), LogQuery(issuers=[A, B]), LogQuery(streams="^exp"), LogQuery(streams="2"),
            LogQuery(streams="none"), LogQuery(exclude_consoles=True, lines="o"),
            LogQuery(issuers=[A, B], start=self.now - 55, end=self.now - 35),
        ):
            self.assertEqual(
                await self.lines(unlisted, query), await self.lines(store, query), query
            )

    async def test_closed_in_the_middle(self) -> None:
        """A cursor closed early frees its connection."""
        store = await self.filled()
        for _ in range(12):
            cursor = await store.open(LogQuery())
            await cursor.close()
            self.assertEqual(len(await cursor.next_block()), 0)
