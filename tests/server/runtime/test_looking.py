"""Looking at intervals: one at a time, and nothing after the end."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.server.runtime.looking import Looking


class LookingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: list[Deferred[None]] = []
        self.done: list[str] = []
        self.looking = Looking(self.clock, self.look)

    async def look(self) -> None:
        self.answers.append(Deferred())
        try:
            await self.answers[-1]
        except CancelledError:
            self.done.append("cancelled")
            raise
        self.done.append("looked")

    def test_one_at_a_time(self) -> None:
        """The next look waits for the end of the former one."""
        self.looking.start(10.0)
        self.clock.advance(25.0)
        self.assertEqual(len(self.answers), 1)
        self.answers[0].callback(None)
        self.clock.advance(5.0)
        self.assertEqual((len(self.answers), self.done), (2, ["looked"]))
        self.looking.stop()

    def test_stopped_while_it_looks(self) -> None:
        """What is asked is given up, without an error, and nothing follows."""
        self.looking.start(10.0)
        self.looking.stop()
        self.assertEqual(self.done, ["cancelled"])
        self.clock.advance(100.0)
        self.assertEqual((len(self.answers), self.clock.getDelayedCalls()), (1, []))

    def test_stopped_between(self) -> None:
        """Nothing is going on."""
        self.looking.start(10.0)
        self.answers[0].callback(None)
        self.looking.stop()
        self.clock.advance(100.0)
        self.assertEqual((len(self.answers), self.done), (1, ["looked"]))
        self.looking.stop()
