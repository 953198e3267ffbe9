"""Places: what any times in any blocks come to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.log_store import FakeLogStore
from walt.server.domain.logs.lines import LogService
from walt.server.domain.logs.model import LogBlock, LogLine, LogQuery, StreamKey
from walt.server.domain.logs.order import BEGINNING, placed

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
NOW = 1e9
TIMES = st.one_of(
    st.integers(0, 5).map(float), st.just(float("nan")), st.floats(NOW - 20, NOW + 20),
    st.sampled_from([NOW, NOW - 1, NOW - 2]),
)
BLOCKS = st.lists(st.tuples(
    st.sampled_from(MACS), st.one_of(st.none(), st.lists(TIMES, min_size=1, max_size=5)),
    st.sampled_from([-3.0, 0.0, 0.0, 2.0]),
), max_size=12)


class PlacedTests(SynchronousTestCase):
    def test_times_that_go_on(self) -> None:
        """Nothing is added to a block whose times do not go back."""
        for stamps in (None, [5.0, 5.0, 7.0]):
            block = LogBlock(StreamKey("m", "s"), "line", 7.0, stamps, "a\nb\nc", 3)
            for last in (BEGINNING, 4.0, 5.0):
                self.assertEqual(placed(block, last), (block, 7.0))

    def test_times_that_go_back(self) -> None:
        """A line is placed with the one before it, in the block or before the block."""
        block = LogBlock(StreamKey("m", "s"), "line", 7.0, [5.0, 9.0, 6.0], "a\nb\nc", 3)
        for last, places in (
            (BEGINNING, [5.0, 9.0, 9.0]), (6.0, [6.0, 9.0, 9.0]), (10.0, [10.0] * 3),
        ):
            self.assertEqual(
                placed(block, last), (block._replace(places=places), places[-1])
            )
        block = block._replace(stamps=None)
        self.assertEqual(placed(block, 8.0), (block._replace(places=[8.0] * 3), 8.0))

    @given(BLOCKS, st.integers(0, 12))
    def test_any_lines(self, sent: list[tuple[str, list[float] | None, float]], at: int) -> None:
        """Streams keep the order of sending, live or stored, over a restart, in any range.

        Streams whose times do not go back are merged by time, then arrival.
        """
        now = [NOW]
        store, live = FakeLogStore(), []
        seen: list[LogLine] = []
        for number, (mac, stamps, step) in enumerate(sent):
            if number in (0, at):
                logs = LogService(store, Clock(), lambda: now[0])
                store.last_batch = 0
                logs.subscribe(LogQuery(), lambda lines, last: seen.extend(lines))
            now[0] += step
            text = "\n".join(f"{number}.{n}" for n in range(len(stamps or "ab")))
            logs.write_lines(mac, "exp", text, stamps=stamps)
            live += [(mac, line) for line in text.split("\n")]
            if number + 1 in (at, len(sent)):
                Deferred.fromCoroutine(logs.flush())
        self.assertEqual([(one.issuer, one.line) for one in seen], live)
        for query in (LogQuery(), LogQuery(start=NOW - 2, end=NOW + 1)):
            found = store.matching(query)
            for mac in MACS:
                wanted = [one for one in seen if one.issuer == mac and (
                    query.start is None or query.end is None
                    or query.start < one.timestamp < query.end
                )]
                self.assertEqual([one for one in found if one.issuer == mac], wanted)
        if all(
            times == sorted(times)
            for mac in MACS for times in [[one.timestamp for one in seen if one.issuer == mac]]
        ):
            self.assertEqual(
                store.matching(LogQuery()), sorted(seen, key=lambda one: one.timestamp)
            )
