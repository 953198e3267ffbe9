"""Work that is cut into turns of the reactor."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.server.runtime.slicing import slices, worked_off


class SlicingTests(SynchronousTestCase):
    def test_slices(self) -> None:
        """Some things in each turn, all of them, in their order."""
        clock, got = Clock(), list[list[int]]()

        async def work() -> None:
            async for some in slices(clock, range(5), 2):
                got.append(list(some))

        done = Deferred.fromCoroutine(work())
        for count in (1, 2, 3):
            self.assertEqual(len(got), count)
            clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(got, [[0, 1], [2, 3], [4]])

    def test_steps(self) -> None:
        """Some steps in each turn; a failure of one is that of the whole."""
        for count, turns in ((0, 0), (3, 1), (4, 2), (5, 2)):
            clock, done = Clock(), list[int]()
            work = Deferred.fromCoroutine(worked_off(clock, map(done.append, range(count)), 2))
            self.assertEqual(len(done), min(count, 2))
            for _ in range(turns):
                self.assertNoResult(work)
                clock.advance(0)
            self.successResultOf(work)
            self.assertEqual(done, list(range(count)))
        failing = worked_off(Clock(), (1 // number for number in (1, 0)), 5)
        self.failureResultOf(Deferred.fromCoroutine(failing), ZeroDivisionError)
