from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.processes import FakeProcess, ProcessClock
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.configured import ConfiguredChild
from walt.server.runtime.process import Launcher
from walt.server.runtime.watching import NoAnswer


class Sleeper(ConfiguredChild[str]):
    """A daemon whose argument is its configuration; it answers while `well`."""

    well = True

    def _written(self, config: str) -> ChildSpec:
        return ChildSpec("sleepd", ("sleepd", config))

    async def _probe(self) -> None:
        if not self.well:
            raise NoAnswer("sleeps")


class ConfiguredChildTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = ProcessClock()
        directory = Path(self.mktemp())
        self.daemon = Sleeper("sleepd", self.clock, Launcher(), directory / "run" / "pid")

    @property
    def process(self) -> FakeProcess:
        """The present child."""
        return self.clock.processes[-1]

    def test_either_comes_first(self) -> None:
        """The configuration and the start wait for each other."""
        self.successResultOf(self.daemon.apply("a"))
        self.assertEqual(self.clock.processes, [])
        self.daemon.startService()
        self.assertEqual(self.process.argv[-2:], ["sleepd", "a"])
        other = Sleeper("sleepd", self.clock, Launcher(), Path(self.mktemp()) / "pid")
        other.startService()
        self.assertEqual(other.health.state, "stopped")
        self.successResultOf(other.apply("b"))
        self.assertEqual(self.process.argv[-2:], ["sleepd", "b"])
        self.assertEqual(other.health.state, "running")

    def test_changes(self) -> None:
        """A changed configuration is a new start, the newest counts, an equal one is nothing."""
        self.daemon.startService()
        self.successResultOf(self.daemon.apply("a"))
        self.successResultOf(self.daemon.apply("a"))
        first = self.process
        waits: list[Deferred[None]] = [self.daemon.apply("b"), self.daemon.apply("c")]
        self.assertEqual(first.signals, ["TERM"])
        self.assertNoResult(waits[0])
        first.end(signal=15)
        for one in waits:
            self.successResultOf(one)
        self.assertEqual(len(self.clock.processes), 2)
        self.assertEqual(self.process.argv[-2:], ["sleepd", "c"])

    def test_stop_and_start(self) -> None:
        """A stopped one remembers what it is told meanwhile."""
        self.successResultOf(self.daemon.stopService())
        self.daemon.startService()
        self.successResultOf(self.daemon.apply("a"))
        stopped = self.daemon.stopService()
        self.process.end(signal=15)
        self.successResultOf(stopped)
        self.successResultOf(self.daemon.apply("b"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.daemon.startService()
        self.assertEqual(self.process.argv[-2:], ["sleepd", "b"])

    def test_it_is_watched(self) -> None:
        """One that does not answer is shown and started again with what it has."""
        self.daemon.startService()
        self.successResultOf(self.daemon.apply("a"))
        self.clock.pump([1] * 20)
        self.assertTrue(self.successResultOf(self.daemon.watch.answered()))
        self.daemon.well = False
        self.clock.pump([1] * 60)
        self.assertEqual(self.daemon.health.state, "not answering")
        self.assertEqual(self.daemon.health.trouble, "sleeps")
        self.assertEqual(self.process.signals, ["TERM", "KILL"])
        self.daemon.well = True
        self.process.end(signal=9)
        self.clock.advance(1)
        self.assertEqual(self.process.argv[-2:], ["sleepd", "a"])
        self.assertEqual((self.daemon.health.state, self.daemon.health.restarts), ("running", 1))
