"""Waiting together, and pausing who sends."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from walt.server.runtime.producing import Gate, Pace
from walt.server.runtime.waiting import Waiters


class WaitersTests(SynchronousTestCase):
    def test_told_together(self) -> None:
        """Each is told once; who stopped waiting is passed over."""
        waiters = Waiters[int]()
        one, gone, two = waiters.wait(), waiters.wait(), waiters.wait()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertTrue(waiters)
        waiters.release(3)
        self.assertFalse(waiters)
        self.assertEqual((self.successResultOf(one), self.successResultOf(two)), (3, 3))

    def test_who_waits_again(self) -> None:
        """It is for the next time."""
        waiters, later = Waiters[None](), []
        waiters.wait().addCallback(lambda _: later.append(waiters.wait()))
        waiters.release(None)
        self.assertNoResult(later[0])
        waiters.release(None)
        self.successResultOf(later[0])

    def test_taken(self) -> None:
        """Those of now are told apart from those who come later."""
        waiters = Waiters[None]()
        one, taken = waiters.wait(), waiters.taken()
        two = waiters.wait()
        taken.fail(ZeroDivisionError())
        self.failureResultOf(one, ZeroDivisionError)
        self.assertNoResult(two)
        waiters.release(None)
        self.successResultOf(two)


class ProducingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[str] = []

    def note(self, word: str) -> None:
        """Be told."""
        self.told.append(word)

    def test_pace(self) -> None:
        """Pauses are passed on; at the end the source goes on, unless told otherwise."""
        pace = Pace(lambda: self.note("pause"), lambda: self.note("resume"))
        verifyObject(IPushProducer, pace)
        for step in (pace.pauseProducing, pace.resumeProducing, pace.stopProducing):
            step()
        self.assertEqual(self.told, ["pause", "resume", "resume"])
        Pace(lambda: None, lambda: None, stop=lambda: self.note("stop")).stopProducing()
        self.assertEqual(self.told[3:], ["stop"])

    def test_gate(self) -> None:
        """It is waited for while closed; the end of the other side is told."""
        gate = Gate(resumed=lambda: self.note("resumed"), stopped=lambda: self.note("stopped"))
        verifyObject(IPushProducer, gate)
        self.successResultOf(gate.opened())
        gate.pauseProducing()
        gate.pauseProducing()
        waiting = gate.opened()
        self.assertNoResult(waiting)
        gate.resumeProducing()
        self.successResultOf(waiting)
        gate.stopProducing()
        self.assertEqual(self.told, ["resumed", "stopped"])
