"""Calls that arrive together: served in slices, in their order, and none after the end."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.transports import TcpTransport
from walt.common import ampbox
from walt.rpc.arguments import Text
from walt.rpc.base import ApiProtocol, WaltCommand
from walt.rpc.intake import SLICE


class Work(WaltCommand):
    """Take some time, or fail, or wait."""

    commandName = b"cs.test.work"
    side = "cs"
    arguments = [(b"what", Text(1 << 20))]
    response = [(b"done", Text(1 << 20))]


class Worker(ApiProtocol):
    """Takes 40 % of a slice for each call; those that wait hold what follows."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.waiting: list[Deferred[dict[str, Any]]] = []
        self.served_calls: list[str] = []

    @Work.responder
    def work(self, what: str) -> Any:
        self.clock.rightNow += SLICE * 0.4
        self.served_calls.append(what)
        if what == "wait":
            self.waiting.append(Deferred())
            self.intake.hold()
            return self.waiting[-1]
        if what == "leave":
            self.connectionLost(Failure(ConnectionDone()))
        return {"done": what}

    def end_waiting(self) -> None:
        """End the call that waits."""
        self.intake.release()
        self.waiting.pop().callback({"done": "waited"})


def call(number: int, what: str) -> bytes:
    return ampbox.encode(
        {b"_command": Work.commandName, b"_ask": b"%d" % number, b"what": what.encode()}
    )


class IntakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.clock = Clock()
        self.worker = Worker(self.clock)
        self.transport = TcpTransport()
        self.worker.makeConnection(self.transport)

    @property
    def is_read(self) -> bool:
        return self.transport.producerState == "producing"

    def answers(self) -> list[bytes]:
        """Return the numbers of the calls that were answered, in their order."""
        return [box[b"_answer"] for box in ampbox.Decoder().feed(self.transport.value())]

    def test_slices(self) -> None:
        """A hundred calls of one read leave turns to others after every third of them."""
        self.worker.dataReceived(b"".join(call(number, "x") for number in range(100)))
        seen = [0, len(self.answers())]

        def other() -> None:
            seen.append(len(self.answers()))
            if seen[-1] < 100:
                self.assertFalse(self.is_read)
                self.clock.callLater(0, other)

        other()
        self.clock.advance(0)
        steps = [after - before for before, after in pairwise(seen)]
        self.assertEqual(max(steps), 3)
        self.assertEqual(self.answers(), [b"%d" % number for number in range(100)])
        self.assertTrue(self.is_read)

    def test_few(self) -> None:
        """What is served within a slice is served at once, and the peer stays read."""
        self.worker.dataReceived(call(1, "x") + call(2, "x"))
        self.assertEqual(self.answers(), [b"1", b"2"])
        self.assertTrue(self.is_read)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(
        st.lists(st.sampled_from(["x", "long" * 40_000, "wait"]), max_size=12),
        st.lists(st.integers(1, 40_000), max_size=12), st.lists(st.booleans(), max_size=40),
    )
    def test_any_cut(self, whats: list[str], cuts: list[int], turns: list[bool]) -> None:
        """However the bytes come, and whenever turns and ends of calls: the same, in order."""
        self.begin()
        data = b"".join(call(number, what) for number, what in enumerate(whats))
        moments = iter(turns)
        for cut in [*cuts, len(data) or 1]:
            piece, data = data[:cut], data[cut:]
            if piece:
                self.worker.dataReceived(piece)
            self.step(next(moments, True))
        while self.clock.getDelayedCalls() or self.worker.waiting:
            self.step(True)
        while self.transport.producer is not None:
            self.transport.producer.resumeProducing()
        self.assertEqual(self.worker.served_calls, whats)
        self.assertEqual(
            sorted(self.answers(), key=int), [b"%d" % number for number in range(len(whats))]
        )
        self.assertTrue(self.is_read)

    def step(self, go_on: bool) -> None:
        if go_on:
            self.clock.advance(0)
            if self.worker.waiting:
                self.assertFalse(self.is_read)
                self.worker.end_waiting()

    def test_held(self) -> None:
        """Nothing is served or read while calls are held, whatever arrives meanwhile."""
        self.worker.dataReceived(call(1, "wait") + call(2, "x"))
        self.worker.dataReceived(call(3, "x"))
        self.clock.advance(1)
        self.assertEqual(self.worker.served_calls, ["wait"])
        self.assertFalse(self.is_read)
        self.worker.end_waiting()
        self.clock.advance(0)
        self.assertEqual(self.answers(), [b"1", b"2", b"3"])
        self.assertTrue(self.is_read)

    def test_peer_leaves(self) -> None:
        """Calls that wait are served no more: neither after the end nor in its turn."""
        self.worker.dataReceived(b"".join(call(number, "x") for number in range(10)))
        self.worker.connectionLost(Failure(ConnectionDone()))
        self.worker.dataReceived(call(11, "x"))
        self.clock.advance(1)
        self.assertEqual(len(self.worker.served_calls), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.begin()
        self.worker.dataReceived(call(1, "x") + call(2, "leave") + call(3, "x"))
        self.clock.advance(1)
        self.assertEqual(self.worker.served_calls, ["x", "leave"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_box_among_them(self) -> None:
        """Calls before what is no call are served; then the connection ends."""
        good = b"".join(call(number, "x") for number in range(10))
        self.worker.dataReceived(good + ampbox.encode({b"neither": b"nor"}) + call(11, "x"))
        while self.clock.getDelayedCalls():
            self.assertFalse(self.transport.aborted)
            self.clock.advance(0)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(len(self.answers()), 10)
        self.worker.dataReceived(call(12, "x"))
        self.assertEqual(len(self.worker.served_calls), 10)

    def test_unexpected_error(self) -> None:
        """One in a later turn ends the connection, as one in the first does."""
        for before in (0, 5):
            with self.subTest(before=before):
                self.begin()
                self.worker.running = self.fail_at_once  # type: ignore[method-assign]
                good = b"".join(call(number, "x") for number in range(before))
                with self.assertRaises(RuntimeError):
                    self.worker.dataReceived(good + call(98, "wait") + call(99, "x"))
                    while self.clock.getDelayedCalls():
                        self.clock.advance(0)
                self.assertTrue(self.transport.aborted)
                self.assertEqual(self.worker.served_calls, ["x"] * before + ["wait"])
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def fail_at_once(self, _command: object, _call: Deferred[Any]) -> None:
        raise RuntimeError("a bug")
