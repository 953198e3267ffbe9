from __future__ import annotations

from itertools import pairwise

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.processes import ProcessClock
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher
from walt.server.runtime.watching import Disobeys, NoAnswer, Watch

HANGS = NoAnswer("hangs")


class WatchTests(SynchronousTestCase):
    """A daemon whose answers the test decides: good, an error, or none (`silent`)."""

    def setUp(self) -> None:
        self.clock = ProcessClock()
        self.problem: Exception | None = None
        self.silent = False
        self.asked: list[float] = []
        self.cancelled = 0
        self.reminders = 0
        self.answers = 0
        self.child = ChildService(self.clock, Launcher(), ChildSpec("sleepd", ("sleepd",)))
        self.watch = Watch(
            self.clock, self.child, self.probe, remind=self.remind, on_answer=self.count
        )

    def remind(self) -> None:
        self.reminders += 1

    def count(self) -> None:
        self.answers += 1

    async def probe(self) -> None:
        self.asked.append(self.clock.seconds())
        if self.silent:
            try:
                await Deferred()
            finally:
                self.cancelled += 1
        if self.problem is not None:
            raise self.problem

    def run_for(self, seconds: int) -> None:
        """Let the time pass; a process that is told to end, or killed, ends."""
        for _ in range(seconds * 4):
            self.clock.advance(0.25)
            process = self.clock.processes[-1]
            if process.pid is not None and "KILL" in process.signals:
                process.end(signal=9)

    @property
    def spawned(self) -> int:
        return len(self.clock.processes)

    def start(self) -> None:
        """Start the daemon and let it answer."""
        self.child.startService()
        self.run_for(60)
        self.assertEqual(self.child.health.state, "running")
        self.asked.clear()

    def test_asked_at_once_then_at_intervals(self) -> None:
        """A new process is asked at once, one that answered each 15 s."""
        confirmed = self.watch.answered()
        self.assertFalse(self.successResultOf(confirmed))  # nothing runs
        self.child.startService()
        confirmed = self.watch.answered()
        self.assertNoResult(confirmed)
        self.run_for(46)
        self.assertTrue(self.successResultOf(confirmed))
        self.assertTrue(self.successResultOf(self.watch.answered()))
        self.assertEqual(self.asked, [0.25, 15.25, 30.25, 45.25])
        self.assertEqual(self.answers, 4)
        self.assertEqual(self.child.health.trouble, None)

    def test_silence(self) -> None:
        """Three questions in a row without answer: shown, told once, killed, started again."""
        self.start()
        self.silent = True
        self.run_for(40)
        self.assertEqual((self.spawned, self.child.health.state), (1, "running"))
        self.run_for(1)
        self.assertEqual(self.child.health.state, "not answering")
        self.assertEqual(self.child.health.trouble, "no answer within 10 s")
        self.assertEqual(self.clock.processes[0].signals, ["TERM"])
        self.silent = False
        self.run_for(5)  # TERM does not end a stopped process
        self.assertEqual(self.clock.processes[0].signals, ["TERM", "KILL"])
        self.assertEqual(self.spawned, 2)
        self.run_for(1)
        health = self.child.health
        self.assertEqual((health.state, health.restarts), ("running", 1))
        self.assertEqual(health.trouble, "no answer within 10 s")
        self.assertEqual(self.cancelled, 3)

    def test_two_failures_and_an_answer(self) -> None:
        """Failures that are not in a row are nothing."""
        self.start()
        for _ in range(10):
            self.problem = HANGS
            self.run_for(30)
            self.problem = None
            self.run_for(15)
        self.assertEqual((self.spawned, self.child.health.trouble), (1, None))

    def test_slow_start(self) -> None:
        """What it does not answer while it starts is nothing; it is asked often."""
        self.problem = HANGS
        self.child.startService()
        confirmed = self.watch.answered()
        self.run_for(29)
        self.assertGreater(len(self.asked), 20)
        self.assertNoResult(confirmed)
        self.problem = None
        self.run_for(2)
        self.assertTrue(self.successResultOf(confirmed))
        self.assertEqual((self.spawned, self.child.health.trouble), (1, None))

    def test_never_answers(self) -> None:
        """Nobody waits for ever; each restart waits for twice as many failures, one warning."""
        self.problem = HANGS
        self.child.startService()
        confirmed = self.watch.answered()
        births = []
        for _ in range(3600):
            before = self.spawned
            self.run_for(1)
            if self.spawned > before:
                births.append(self.clock.seconds())
        self.assertFalse(self.successResultOf(confirmed))
        pauses = [b - a for a, b in pairwise(births)]
        self.assertEqual([round(one, -1) for one in pauses], [110, 200, 380, 740, 740, 740])
        self.assertEqual(self.child.health.state, "not answering")

    def test_a_reload_gives_time(self) -> None:
        """After `settle` failures do not count for a while."""
        self.start()
        self.problem = HANGS
        for _ in range(10):
            self.run_for(25)
            self.watch.settle()
        self.assertEqual((self.spawned, self.child.health.trouble), (1, None))

    def test_disobedience(self) -> None:
        """It is told to read its files again, then it is started again."""
        self.start()
        self.problem = Disobeys("old zone")
        self.run_for(46)
        self.assertEqual((self.reminders, self.spawned), (1, 1))
        self.assertEqual(self.child.health.state, "not answering")
        self.run_for(20)
        self.assertEqual(self.spawned, 1)
        self.run_for(70)
        self.assertEqual((self.reminders, self.spawned), (1, 2))
        self.problem = None
        self.run_for(16)
        self.assertEqual(self.child.health.state, "running")
        self.problem = Disobeys("old zone")
        self.run_for(90)
        self.assertEqual((self.reminders, self.spawned), (2, 2))

    def test_a_server_held_up(self) -> None:
        """A server that did not run itself has not looked for the answer."""
        self.start()
        self.silent = True
        for _ in range(10):
            self.clock.advance(15)
            self.clock.advance(60)
        self.assertEqual((self.spawned, self.child.health.trouble), (1, None))

    def test_cannot_ask(self) -> None:
        """What keeps the server from asking says nothing about the daemon."""
        self.problem = OSError(98, "Address already in use")
        self.child.startService()
        confirmed = self.watch.answered()
        self.run_for(300)
        self.assertFalse(self.successResultOf(confirmed))
        self.assertEqual((self.spawned, self.child.health.state), (1, "running"))

    def test_end_during_a_question(self) -> None:
        """A process that ends is asked no more; its successor is."""
        self.start()
        self.silent = True
        self.run_for(15)
        confirmed = self.watch.answered()
        self.clock.processes[-1].end(status=1)
        self.assertTrue(self.successResultOf(confirmed))  # it had answered
        self.assertEqual(self.cancelled, 1)
        self.assertFalse(self.successResultOf(self.watch.answered()))
        self.silent = False
        self.assertEqual(self.child.health.state, "restarting in 1 s")
        self.run_for(2)
        self.assertTrue(self.successResultOf(self.watch.answered()))

    def test_stop(self) -> None:
        """Nothing is asked of a daemon that was stopped, and no timer is left."""
        self.start()
        self.silent = True
        self.run_for(16)
        stopped = self.child.stopService()
        self.clock.processes[-1].end(signal=15)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.child.health.state, "stopped")
