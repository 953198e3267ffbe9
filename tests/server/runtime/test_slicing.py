"""Work that is cut into turns of the reactor."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.server.runtime.slicing import TURN, Turnstile, slices, worked_off


class Turns(Clock):
    """Notes how much was done when each turn ended."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[int] = []
        self.ends: list[int] = []

    def callLater(self, delay: float, callable: Any, *args: Any, **kw: Any) -> Any:
        """Note the end of a turn."""
        self.ends.append(len(self.done))
        return super().callLater(delay, callable, *args, **kw)


class SlicingTests(SynchronousTestCase):
    def finish(self, clock: Clock, work: Coroutine[Any, Any, None]) -> None:
        """Do it to its end."""
        done = Deferred.fromCoroutine(work)
        clock.advance(0)
        self.successResultOf(done)

    def test_slices(self) -> None:
        """Some things in each turn, all of them, in their order."""
        clock = Turns()

        async def work() -> None:
            async for some in slices(clock, range(5), 2):
                clock.done += some

        self.finish(clock, work())
        self.assertEqual((clock.done, clock.ends), ([0, 1, 2, 3, 4], [2, 4]))

    def test_steps(self) -> None:
        """Some steps in each turn."""
        for count, ends in ((0, []), (3, [2]), (4, [2, 4]), (5, [2, 4])):
            clock = Turns()
            self.finish(clock, worked_off(clock, map(clock.done.append, range(count)), 2))
            self.assertEqual((clock.done, clock.ends), (list(range(count)), ends))
    def test_slow_steps(self) -> None:
        """Fewer in a turn where they take long."""
        clock = Turns()

        def steps() -> Iterator[None]:
            for number in range(4):
                clock.done.append(number)
                clock.rightNow += 0.003
                yield

        self.finish(clock, worked_off(clock, steps(), 100))
        self.assertEqual((clock.done, clock.ends), ([0, 1, 2, 3], [2, 4]))

    def test_failure(self) -> None:
        """The failure of a step is that of the whole."""
        failing = worked_off(Clock(), (1 // number for number in (1, 0)), 5)
        self.failureResultOf(Deferred.fromCoroutine(failing), ZeroDivisionError)


class TurnstileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Turns()
        self.passed = self.clock.done
        self.turnstile = Turnstile(self.clock)

    def come(self, number: int, cost: float = 0.0, again: bool = False) -> Deferred[None]:
        """Want to pass; passing takes some seconds."""

        def go(_: None) -> None:
            self.passed.append(number)
            self.clock.rightNow += cost
            if again:
                self.come(number + 100)

        return self.turnstile.passed().addCallback(go)

    def test_all_of_one_turn(self) -> None:
        """What takes no time is done in the next turn, in its order."""
        for number in range(5):
            self.come(number)
        self.assertEqual(self.passed, [])
        self.clock.advance(0)
        self.assertEqual(self.passed, [0, 1, 2, 3, 4])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_takes_time(self) -> None:
        """After TURN the rest waits for the next turn."""
        for number in range(5):
            self.come(number, cost=0.6 * TURN)
        self.clock.advance(0)
        self.assertEqual(self.passed, [0, 1, 2, 3, 4])
        self.assertEqual(self.clock.ends, [0, 2, 4])

    def test_again(self) -> None:
        """Who comes again while others pass waits for the next turn, and is not left out."""
        self.come(1, again=True)
        self.clock.advance(0)
        self.assertEqual(self.passed, [1, 101])
        self.assertEqual(self.clock.ends, [0, 1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """Who does not wait any more keeps nobody."""
        first = self.come(1)
        self.come(2)
        first.cancel()
        self.failureResultOf(first)
        self.clock.advance(0)
        self.assertEqual(self.passed, [2])
