from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.log_store import FakeLogStore
from walt.common.errors import Invalid, LimitExceeded, Unavailable
from walt.server.domain.logs.ere import Expression
from walt.server.domain.logs.lines import (
    BATCH,
    FLUSH_AFTER,
    MAX_PENDING,
    MAX_PENDING_SIZE,
    PAUSE,
    LogService,
)
from walt.server.domain.logs.model import (
    TEN_YEARS,
    LogLine,
    LogQuery,
    all_corrected,
    clean_text,
    parse_query,
)
from walt.server.domain.shares import (
    ALL_LOG_READERS,
    ALL_WEB_READERS,
    MAX_LOG_READERS,
    MAX_WEB_READERS,
)

MAC = "02:00:00:00:00:01"
NOW = 1e9


class LogServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.store = Clock(), FakeLogStore()
        self.logs = LogService(self.store, self.clock, lambda: NOW + self.clock.seconds())

    def write(self, count: int = 1, **options: Any) -> None:
        """Write numbered lines."""
        first = self.logs.accepted
        for number in range(first, first + count):
            self.logs.write(MAC, "exp", str(number), **options)

    def texts(self) -> list[str]:
        """Return the stored texts in the order of their storage."""
        return [one.line for one in self.store.lines]

    def test_who_reads(self) -> None:
        """The store learns who reads, for shares of archived lines; readers of pages are one."""
        told: list[str] = []
        for name in ("open", "count"):
            former = getattr(self.store, name)

            def noted(query: LogQuery, *more: Any, former: Any = former) -> Any:
                """Note who it is."""
                told.append(query.reader)
                return former(query, *more)

            self.patch(self.store, name, noted)
        for work in (
            self.logs.open(LogQuery(), "ann"), self.logs.open(LogQuery(), "::1", web=True),
            self.logs.count(LogQuery(), "bob"),
        ):
            self.successResultOf(Deferred.fromCoroutine(work))
        self.assertEqual(told, ["ann", "the web API", "bob"])

    def test_batches(self) -> None:
        """Lines of 0.3 s are stored together."""
        self.write(3)
        self.clock.advance(FLUSH_AFTER - 0.01)
        self.assertEqual(self.store.inserts, [])
        self.write(2)
        self.clock.advance(0.01)
        self.assertEqual((self.store.inserts, self.texts()), ([5], ["0", "1", "2", "3", "4"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full_batch(self) -> None:
        """Many lines do not wait."""
        self.write(BATCH)
        self.clock.advance(0)
        self.assertEqual(self.store.inserts, [BATCH])

    def test_order_under_load(self) -> None:
        """Lines that come while others are stored keep their order."""
        self.store.gate = gate = Deferred()
        self.write(BATCH)
        self.clock.advance(0)
        self.write(700)
        self.clock.advance(1)
        self.assertEqual(self.texts(), [])
        gate.callback(None)
        self.assertEqual(self.texts(), [str(number) for number in range(BATCH + 700)])

    def test_lost_database(self) -> None:
        """Lines wait for the database, in order, and none is lost."""
        self.store.errors = [Unavailable("gone"), Unavailable("gone")]
        self.write(2)
        self.clock.advance(FLUSH_AFTER)
        self.write(1)
        self.assertEqual(self.texts(), [])
        self.clock.pump([1.0, 1.0])
        self.assertEqual(self.texts(), ["0", "1", "2"])

    def test_refused_batch(self) -> None:
        """What the store refuses is logged, and takes nothing else with it."""
        self.store.errors = [Invalid("bad"), Invalid("this one")]
        self.write(3)
        self.clock.advance(FLUSH_AFTER)
        self.write(1)
        self.clock.advance(FLUSH_AFTER)
        self.assertEqual(self.texts(), ["1", "2", "3"])
        self.assertEqual(len(self.flushLoggedErrors(Invalid)), 1)

    def test_texts_that_no_database_takes(self) -> None:
        """What the server itself tells of odd names is kept, as what nodes send is."""
        self.logs.write(MAC, "exp", "a\0b \udcff é\nnext")
        self.clock.advance(FLUSH_AFTER)
        self.assertEqual(self.texts(), ["a\\x00b \\udcff é", "next"])

    def test_blocks(self) -> None:
        """Lines that come together are one block: live readers see lines."""
        seen: list[LogLine] = []
        self.logs.subscribe(LogQuery(lines="o"), lambda lines, last: seen.extend(lines))
        self.logs.write_lines(MAC, "exp", "one\ntwo\n\nthree", stamps=[NOW - 3, 5.0, NOW, NOW])
        self.logs.write_lines(MAC, "exp", "four\nfive")
        self.assertEqual(self.logs.accepted, 6)
        self.assertEqual(
            [(one.timestamp - NOW, one.line) for one in seen],
            [(-3, "one"), (0, "two"), (0, "four")],
        )
        self.clock.advance(FLUSH_AFTER)
        self.assertEqual(self.texts(), ["one", "two", "", "three", "four", "five"])
        self.assertEqual(self.store.inserts, [6])

    def test_stored(self) -> None:
        """It fires when what was accepted before is stored, though more lines come."""
        self.successResultOf(self.logs.stored())
        self.store.gate = gate = Deferred()
        self.write(2)
        stored = self.logs.stored()
        self.store.errors = [Unavailable("gone")]
        self.write(BATCH)
        self.assertNoResult(stored)
        gate.callback(None)
        self.assertNoResult(stored)
        self.clock.advance(1)
        self.successResultOf(stored)
        self.assertEqual(self.texts()[:2], ["0", "1"])

    def test_answer_lost(self) -> None:
        """A batch that was stored although the database was lost is not stored twice."""
        insert, lost = self.store.insert, [True]

        async def answer_lost(batch: int, blocks: Any) -> None:
            await insert(batch, blocks)
            if lost and lost.pop():
                raise Unavailable("the answer was lost")

        self.store.insert = answer_lost  # type: ignore[method-assign]
        self.write(2)
        self.clock.advance(FLUSH_AFTER)
        self.write(1)
        self.clock.pump([1.0, 1.0])
        self.assertEqual(self.texts(), ["0", "1", "2"])

    def test_congestion(self) -> None:
        """A sender is asked to wait above a limit, and told when its lines are welcome."""
        self.successResultOf(self.logs.welcome(MAC))
        self.store.gate = gate = Deferred()
        self.write(MAX_PENDING)
        self.clock.advance(0)
        self.assertTrue(self.logs.must_wait(MAC))
        welcome = self.logs.welcome(MAC)
        self.assertNoResult(welcome)
        gate.callback(None)
        self.successResultOf(welcome)
        self.assertFalse(self.logs.must_wait(MAC))
        self.assertEqual(len(self.texts()), MAX_PENDING)

    def test_fair_shares(self) -> None:
        """Devices that flood wait for their own lines; another one does not wait for them."""
        other, third = "02:00:00:00:00:02", "02:00:00:00:00:03"
        self.store.gate = gate = Deferred()
        self.logs.write_lines(MAC, "exp", "\n" * (MAX_PENDING // 2))
        self.clock.advance(0)
        waiting = self.logs.welcome(MAC)
        self.assertTrue(self.logs.must_wait(MAC))
        self.assertFalse(self.logs.must_wait(other))
        self.logs.write_lines(third, "exp", "\n" * (MAX_PENDING // 2))
        for _ in range(100):
            self.logs.write(other, "exp", "line")
            self.assertFalse(self.logs.must_wait(other))
        self.logs.write_lines(other, "exp", "\n" * 1000)
        self.assertTrue(self.logs.must_wait(other))  # too much in all: a little is allowed
        self.assertNoResult(waiting)
        gate.callback(None)
        self.successResultOf(waiting)
        for mac in (MAC, other, third):
            self.successResultOf(self.logs.welcome(mac))
            self.assertFalse(self.logs.must_wait(mac))

    def test_large_lines_count_by_size(self) -> None:
        """Few lines may be too much."""
        self.store.gate = Deferred()
        self.write()
        self.clock.advance(FLUSH_AFTER)
        self.logs.write(MAC, "exp", "x" * (MAX_PENDING_SIZE // 2))
        self.assertTrue(self.logs.must_wait(MAC))

    def test_unexpected_errors(self) -> None:
        """An error that is no refusal of the lines loses none, however often it comes."""
        self.store.errors = [OSError("socket"), OSError("socket"), ValueError("odd")]
        self.write(1)
        self.clock.advance(FLUSH_AFTER)
        self.write(1)
        self.clock.pump([PAUSE] * 3)
        self.assertEqual(self.texts(), ["0", "1"])
        self.assertEqual(len(self.flushLoggedErrors(OSError, ValueError)), 3)

    def test_clock_jumps(self) -> None:
        """The time of reception follows the clock; lines keep their order of arrival."""
        moments = [NOW, NOW + 1e6, NOW - 1e6, NOW]
        self.logs.now = lambda: moments[0]
        for _ in range(4):
            self.write(1, timestamp=NOW - 5)  # of a node whose clock did not jump
            self.write(1)
            moments.append(moments.pop(0))
        Deferred.fromCoroutine(self.logs.flush())
        self.assertEqual(self.texts(), [str(number) for number in range(8)])
        stamps = [one.timestamp for one in self.store.lines]
        self.assertEqual(stamps[1::2], moments)
        # From the past, that node's lines are too far in the future: time of reception.
        self.assertEqual(stamps[::2], [NOW - 5, NOW - 5, NOW - 1e6, NOW - 5])

    def test_flush(self) -> None:
        """A flush returns when everything accepted is stored."""
        self.store.gate = gate = Deferred()
        self.write(3)
        flushed = Deferred.fromCoroutine(self.logs.flush())
        again = Deferred.fromCoroutine(self.logs.flush())
        self.assertNoResult(flushed)
        gate.callback(None)
        self.successResultOf(flushed)
        self.successResultOf(again)
        self.assertEqual(len(self.texts()), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unknown_issuer(self) -> None:
        """Lines of a device forgotten meanwhile are dropped, the others are kept."""
        self.store.unknown.add("gone")
        self.logs.write("gone", "exp", "lost")
        self.write(1)
        self.clock.advance(1)
        self.assertEqual(len(self.texts()), 1)

    def test_forgotten_issuer(self) -> None:
        """A MAC that comes back after it was forgotten gets a new stream."""
        self.write(1)
        self.clock.advance(1)
        self.store.streams.clear()
        self.logs.forget(MAC)
        self.write(1)
        self.clock.advance(1)
        self.assertEqual(len(self.texts()), 2)

    def test_live(self) -> None:
        """Subscribers see each matching line at once; a query tells where live lines start."""
        seen: list[LogLine] = []
        numbers: list[int] = []

        def live(lines: list[LogLine], last: int) -> None:
            seen.extend(lines)
            numbers.append(last)

        self.logs.subscribe(LogQuery(lines="[13]$"), live)
        self.write(4)
        self.assertEqual([line.line for line in seen], ["1", "3"])
        self.assertEqual(numbers, [2, 4])
        cursor, last = self.successResultOf(
            Deferred.fromCoroutine(self.logs.open(LogQuery(), "ann"))
        )
        self.assertEqual(last, 4)
        block = self.successResultOf(Deferred.fromCoroutine(cursor.next_block()))
        self.assertEqual(block.texts(), ["0", "1"])
        self.logs.unsubscribe(live)
        self.write(4)
        self.assertEqual(
            self.successResultOf(
                Deferred.fromCoroutine(self.logs.count(LogQuery(lines="[13]$"), "ann"))
            ),
            2,
        )

    def test_a_long_search(self) -> None:
        """While a query is looked for, lines are stored; they are live ones for its reader."""
        self.write(2)
        self.store.opening = Deferred()
        opening = Deferred.fromCoroutine(self.logs.open(LogQuery(), "ann"))
        self.write(3)
        self.clock.advance(1)
        self.assertEqual(len(self.store.lines), 5)
        self.assertNoResult(opening)
        self.store.opening.callback(None)
        cursor, last = self.successResultOf(opening)
        self.assertEqual(last, 2)
        block = self.successResultOf(Deferred.fromCoroutine(cursor.next_block()))
        self.assertEqual(len(block), 2)

    def test_readers(self) -> None:
        """Each user has few readers, all together not all connections; pages have their own."""
        def opened(reader: str, web: bool = False) -> Deferred[Any]:
            return Deferred.fromCoroutine(self.logs.open(LogQuery(), reader, web=web))

        cursors = [
            self.successResultOf(opened(f"user{user}"))[0]
            for user in range(ALL_LOG_READERS // MAX_LOG_READERS) for _ in range(MAX_LOG_READERS)
        ]
        for reader in ("user0", "somebody"):
            self.failureResultOf(opened(reader), LimitExceeded)
            self.failureResultOf(
                Deferred.fromCoroutine(self.logs.count(LogQuery(), reader)), LimitExceeded
            )
        pages = [
            self.successResultOf(opened(f"192.0.2.{peer}", True))[0]
            for peer in range(ALL_WEB_READERS // MAX_WEB_READERS) for _ in range(MAX_WEB_READERS)
        ]
        self.failureResultOf(opened("192.0.2.9", True), LimitExceeded)
        for _ in range(2):
            self.successResultOf(Deferred.fromCoroutine(cursors[0].close()))
            self.successResultOf(Deferred.fromCoroutine(pages[0].close()))
        self.successResultOf(opened("somebody"))
        self.failureResultOf(opened("somebody"), LimitExceeded)
        self.successResultOf(opened("192.0.2.9", True))
        self.failureResultOf(opened("192.0.2.9", True), LimitExceeded)

    def test_timestamps(self) -> None:
        """Impossible times become the time of reception."""
        for given_time in (None, 0.0, NOW + 10, float("nan"), float("inf")):
            self.write(1, timestamp=given_time)
        self.write(1, timestamp=NOW - 5)
        self.clock.advance(1)
        self.assertEqual([one.timestamp - NOW for one in self.store.lines], [0, 0, 0, 0, 0, -5])


class ModelTests(SynchronousTestCase):
    def test_corrected(self) -> None:
        """Ten years back, one second ahead."""
        for moment, expected in (
            (NOW - TEN_YEARS, NOW - TEN_YEARS), (NOW - TEN_YEARS - 1, NOW), (NOW + 1, NOW + 1),
            (NOW + 1.01, NOW),
        ):
            self.assertEqual(all_corrected([moment, NOW], NOW), [expected, NOW])

    @given(st.binary(max_size=200))
    def test_clean_text(self, raw: bytes) -> None:
        """Any bytes become a text that a database takes."""
        text = clean_text(raw)
        self.assertNotIn("\0", text)
        text.encode()

    def test_queries(self) -> None:
        """Wrong values are refused by name."""
        for value in (
            None, 3, [], {"streams": 1}, {"lines": "x\0"}, {"lines": "("}, {"streams": "["},
            {"start": "now"}, {"end": True}, {"start": 1e12}, {"lines": "x" * 20_000},
            {"end": float("nan")},
        ):
            self.assertRaises(Invalid, parse_query, value, None)
        query = parse_query({"streams": "a|b", "start": 5, "exclude_consoles": True}, None)
        self.assertEqual((query.streams, query.start, query.exclude_consoles), ("a|b", 5.0, True))

    def test_matcher(self) -> None:
        """Issuers, streams, lines and consoles."""
        line = LogLine(NOW, MAC, "virtualconsole", "b'boot'")
        self.assertTrue(LogQuery().matcher().matches(line))
        for query in (
            LogQuery(frozenset({"other"})), LogQuery(streams="^console"), LogQuery(lines="^x"),
            LogQuery(exclude_consoles=True), LogQuery(frozenset()),
        ):
            self.assertFalse(query.matcher().matches(line))

    def test_expressions(self) -> None:
        """POSIX extended expressions, not Python's."""
        self.assertTrue(Expression("a{2}").found_in("baab"))
        self.assertTrue(Expression("[[:digit:]]+$").found_in("x12"))
        self.assertFalse(Expression("^(a|b)$").found_in("ab"))
        for bad in ("(", "[", "a\0b", "x" * 2001):
            self.assertRaises(Invalid, Expression, bad)

    @given(st.text(max_size=30), st.text(max_size=50))
    def test_any_expression(self, expression: str, text: str) -> None:
        """Any text is an expression or Invalid, and is searched in any text."""
        try:
            Expression(expression).found_in(text)
        except Invalid:
            return
