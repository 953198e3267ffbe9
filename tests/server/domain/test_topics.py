"""Topics: a snapshot, differences at a pace, one encoding for all, no word to who is late."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.fakes.viewers import FakeViewer as Viewer
from walt.server.domain.topics import LOOK_EVERY, PACE, IViewer, Topic


class TopicTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rows = {"a": "1", "b": "2"}
        self.asked = self.encoded = 0
        self.topic = Topic("things", self.ask, self.encode, self.clock)
        self.one, self.other = Viewer(), Viewer()
        verifyObject(IViewer, self.one)

    async def ask(self) -> dict[str, str]:
        """Return the rows."""
        self.asked += 1
        return dict(self.rows)

    def encode(self, text: str) -> bytes:
        """Count the encodings."""
        self.encoded += 1
        return text.encode()

    def test_snapshot_and_differences(self) -> None:
        self.topic.watch(self.one)
        self.assertEqual(self.one.last(), {"topic": "things", "rows": {"a": 1, "b": 2}})
        self.rows = {"b": "3", "c": "4"}
        self.topic.changed()
        self.clock.advance(PACE)
        self.assertEqual(
            self.one.last(), {"topic": "things", "set": {"b": 3, "c": 4}, "gone": ["a"]}
        )

    def test_pace(self) -> None:
        """A thousand changes are one message; nothing is said when nothing is different."""
        self.topic.watch(self.one)
        self.one.got.clear()
        for number in range(1000):
            self.rows["a"] = str(number + 10)
            self.topic.changed()
        self.assertEqual(self.one.got, [])
        self.clock.advance(PACE)
        self.assertEqual(len(self.one.got), 1)
        self.topic.changed()
        self.clock.advance(PACE)
        self.assertEqual(len(self.one.got), 1)
        self.assertEqual(self.asked, 3)

    def test_what_tells_nothing(self) -> None:
        """It is looked at now and then, as long as somebody watches."""
        self.topic.watch(self.one)
        self.rows["a"] = "9"
        self.clock.advance(LOOK_EVERY)
        self.assertEqual(self.one.last()["set"], {"a": 9})
        self.topic.leave(self.one)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.topic.changed()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_encoding(self) -> None:
        for viewer in (self.one, self.other):
            self.topic.watch(viewer)
        self.assertEqual(self.encoded, 1)
        self.assertIs(self.one.got[0], self.other.got[0])
        self.rows["a"] = "9"
        self.topic.changed()
        self.clock.advance(PACE)
        self.assertEqual(self.encoded, 2)
        self.assertIs(self.one.got[1], self.other.got[1])

    def test_a_late_viewer(self) -> None:
        """It gets nothing, then what it has missed; the others wait for nobody."""
        self.rows |= {"c": "3", "d": "4", "e": "5"}
        for viewer in (self.one, self.other):
            self.topic.watch(viewer)
            viewer.got.clear()
        self.one.late = True
        for value in ("7", "8"):
            self.rows["a"] = value
            self.rows.pop("b", None)
            self.topic.changed()
            self.clock.advance(PACE)
        self.assertEqual(self.one.got, [])
        self.assertEqual(len(self.other.got), 2)
        self.one.late = False
        self.topic.drained(self.one)
        self.assertEqual(self.one.last(), {"topic": "things", "set": {"a": 8}, "gone": ["b"]})
        self.topic.drained(self.one)
        self.assertEqual(self.one.got, [])

    def test_a_viewer_that_is_late_for_long(self) -> None:
        """It gets everything, once most of it was missed, or when it had nothing yet."""
        for viewer in (self.one, self.other):
            self.topic.watch(viewer)
            viewer.got.clear()
        third = Viewer()
        self.one.late = third.late = True
        self.topic.watch(third)
        self.rows = {"a": "8", "b": "9"}
        self.topic.changed()
        self.clock.advance(PACE)
        for viewer in (self.one, third):
            self.assertEqual(viewer.got, [])
            viewer.late = False
            self.topic.drained(viewer)
            self.assertEqual(viewer.last()["rows"], {"a": 8, "b": 9})

    @given(st.lists(st.one_of(
        st.tuples(st.just("row"), st.sampled_from("abcdef"), st.integers(0, 3)),
        st.tuples(st.just("gone"), st.sampled_from("abcdef"), st.just(0)),
        st.tuples(st.sampled_from(["late", "drained", "look"]), st.just(""), st.just(0)),
    )))
    def test_what_a_viewer_has(self, steps: list[tuple[str, str, int]]) -> None:
        """Whatever it misses meanwhile, it has the rows once it has taken what it was sent."""
        self.setUp()
        self.topic.watch(self.one)
        has: dict[str, int] = {}

        def take() -> None:
            for message in map(json.loads, self.one.got):
                if "rows" in message:
                    has.clear()
                has.update(message.get("rows", message.get("set")))
                for key in message.get("gone", ()):
                    has.pop(key, None)
            self.one.got.clear()

        for what, key, value in (*steps, ("look", "", 0), ("drained", "", 0)):
            if what == "row":
                self.rows[key] = str(value)
            elif what == "gone":
                self.rows.pop(key, None)
            elif what == "late":
                self.one.late = True
            elif what == "drained":
                self.one.late = False
                self.topic.drained(self.one)
            else:
                self.topic.changed()
                self.clock.advance(PACE)
            take()
        self.assertEqual(has, {key: int(text) for key, text in self.rows.items()})

    def test_who_comes_again(self) -> None:
        """Nothing old is shown to the first who watches again."""
        self.topic.watch(self.one)
        self.topic.leave(self.one)
        self.rows["a"] = "5"
        self.one.got.clear()
        self.topic.watch(self.one)
        self.assertEqual(self.one.got, [])
        self.clock.advance(PACE)
        self.assertEqual(self.one.last()["rows"]["a"], 5)
        self.topic.leave(self.one)
        self.clock.advance(PACE)
        self.rows["a"] = "6"
        self.topic.watch(self.one)
        self.assertEqual(self.one.last()["rows"]["a"], 6)

    def test_who_comes_and_goes(self) -> None:
        """A hundred times: rows are asked for, and sent, at the pace of everybody."""
        for _ in range(100):
            self.topic.watch(self.one)
            self.topic.leave(self.one)
        self.assertEqual((self.asked, len(self.one.got)), (1, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(PACE)
        self.topic.watch(self.other)  # somebody else is there all the time
        self.one.got.clear()
        for _ in range(100):
            self.topic.watch(self.one)
            self.topic.leave(self.one)
        self.topic.watch(self.one)
        self.assertEqual((self.asked, len(self.one.got)), (2, 1))
        self.clock.advance(PACE)
        self.assertEqual((self.asked, len(self.one.got), len(self.other.got)), (3, 2, 1))
        self.assertEqual(self.one.last()["rows"], {"a": 1, "b": 2})

    def test_slow_answers(self) -> None:
        """What changes while the rows are being made is not lost; who left hears nothing."""
        waiting: list[Deferred[None]] = []

        async def slow() -> dict[str, str]:
            rows = dict(self.rows)
            waiting.append(Deferred())
            await waiting[-1]
            return rows

        topic = Topic("slow", slow, self.encode, self.clock)
        topic.watch(self.one)
        self.rows["a"] = "6"
        topic.changed()
        waiting.pop().callback(None)
        self.assertEqual(self.one.last()["rows"]["a"], 1)
        self.clock.advance(PACE)
        waiting.pop().callback(None)
        self.assertEqual(self.one.last()["set"], {"a": 6})
        topic.changed()
        self.clock.advance(PACE)
        topic.leave(self.one)
        waiting.pop().callback(None)
        self.assertEqual(self.one.got, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
