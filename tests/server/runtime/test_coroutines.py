from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid, Unavailable
from walt.common.files import write_atomic, write_durable, write_if_changed
from walt.server.runtime.coroutines import (
    TOLD_EVERY,
    TRY_EVERY,
    insist,
    shielded,
    spawn,
    together,
    unbroken,
)
from walt.server.runtime.turns import TurnMonitor


class SpawnTests(SynchronousTestCase):
    def test_failure_is_logged(self) -> None:
        """A failure that nobody waits for is logged."""

        async def work() -> None:
            raise ValueError("lost")

        self.successResultOf(spawn(work(), "working"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_what_can_happen_is_logged_in_words(self) -> None:
        """An error that people are told is no traceback."""
        words: list[str] = []

        def observe(event: LogEvent) -> None:
            words.append(formatEvent(event))

        async def work() -> None:
            raise Invalid("too long")

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.successResultOf(spawn(work(), "recording"))
        self.assertEqual(words, ["recording failed: too long"])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_insist(self) -> None:
        """What is not there yet is tried again, in its time, and told now and then."""
        clock, outcomes = Clock(), [Unavailable("away"), Unavailable("away"), None]

        async def act() -> None:
            outcome = outcomes.pop(0)
            if outcome is not None:
                raise outcome

        done = Deferred.fromCoroutine(insist(clock, act, "recording"))
        clock.pump([TRY_EVERY / 2] * 3)
        self.assertNoResult(done)
        clock.advance(TRY_EVERY / 2)
        self.successResultOf(done)
        outcomes += [Invalid("never")]
        self.failureResultOf(Deferred.fromCoroutine(insist(clock, act, "recording")), Invalid)
        outcomes += [*[Unavailable("away")] * 2 * TOLD_EVERY, None]
        words: list[str | None] = []
        observe = lambda event: words.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        done = Deferred.fromCoroutine(insist(clock, act, "recording"))
        clock.pump([TRY_EVERY] * 2 * TOLD_EVERY)
        self.successResultOf(done)
        self.assertEqual((words, outcomes), (["recording waits: away"] * 2, []))

    def test_shielded(self) -> None:
        """Cancelling the follower lets the work go on; its late failure is logged."""
        work: Deferred[int] = Deferred()
        follower = shielded(work)
        follower.addErrback(lambda failure: None)
        follower.cancel()
        self.assertFalse(work.called)
        work.errback(ValueError("late"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_shielded_results(self) -> None:
        """Without cancellation the follower gets result or failure."""
        work: Deferred[int] = Deferred()
        follower = shielded(work)
        work.callback(3)
        self.assertEqual(self.successResultOf(follower), 3)
        failing: Deferred[int] = Deferred()
        follower = shielded(failing)
        failing.errback(ValueError("now"))
        self.failureResultOf(follower, ValueError)


class TogetherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waits: list[Deferred[None]] = [Deferred(), Deferred()]
        self.ended: list[int] = []
        self.work = Deferred.fromCoroutine(together(*map(self.part, range(2))))

    async def part(self, number: int) -> None:
        """Do a part, which takes its time."""
        try:
            await self.waits[number]
        except CancelledError:
            self.ended.append(-number)
            raise
        self.ended.append(number)

    def test_all(self) -> None:
        """They are done at the same time, in any order."""
        self.waits[1].callback(None)
        self.assertNoResult(self.work)
        self.waits[0].callback(None)
        self.successResultOf(self.work)
        self.assertEqual(self.ended, [1, 0])

    def test_one_fails(self) -> None:
        """Its error is that of all; nobody goes on with the rest."""
        self.waits[0].errback(Unavailable("away"))
        self.assertEqual(str(self.failureResultOf(self.work, Unavailable).value), "away")
        self.assertEqual(self.ended, [-1])

    def test_given_up(self) -> None:
        """Nobody goes on when nobody waits any more."""
        self.work.cancel()
        self.failureResultOf(self.work, CancelledError)
        self.assertEqual(sorted(self.ended), [-1, 0])


class UnbrokenTests(SynchronousTestCase):
    """Work of several steps, of which each waits for the test."""

    def setUp(self) -> None:
        self.steps: list[Deferred[int]] = []

    @unbroken
    async def work(self, count: int) -> int:
        """Return the sum of what the steps give."""
        total = 0
        for _ in range(count):
            self.steps.append(Deferred())
            total += await self.steps[-1]
        return total

    def test_to_its_end(self) -> None:
        """Result and error come through."""
        running = Deferred.fromCoroutine(self.work(2))
        self.steps[0].callback(1)
        self.steps[1].callback(2)
        self.assertEqual(self.successResultOf(running), 3)
        running = Deferred.fromCoroutine(self.work(2))
        self.steps[2].errback(Invalid("no"))
        self.failureResultOf(running, Invalid)

    def test_requester_leaves(self) -> None:
        """All steps are done; who was cancelled, once or twice, hears of it after that."""
        running = Deferred.fromCoroutine(self.work(2))
        running.cancel()
        self.steps[0].callback(1)
        running.cancel()
        self.assertNoResult(running)
        self.steps[1].callback(2)
        self.failureResultOf(running, CancelledError)

    def test_failure_when_nobody_waits(self) -> None:
        """It is logged, once: in words when it can happen."""
        words: list[str] = []

        def observe(event: LogEvent) -> None:
            words.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for error, logged in ((Unavailable("no database"), 0), (ValueError("a bug"), 1)):
            self.steps.clear()
            running = Deferred.fromCoroutine(self.work(1))
            running.cancel()
            self.steps[0].errback(error)
            self.failureResultOf(running, CancelledError)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), logged)
        self.assertEqual(
            words[0], "work went on without its requester and failed: no database"
        )


class FilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "file"

    def test_replaces(self) -> None:
        """The file has the new content and mode; nothing else is left."""
        self.path.write_text("old")
        write_atomic(self.path, "new", 0o600)
        self.assertEqual(self.path.read_text(), "new")
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.directory), ["file"])

    def test_failure_keeps_the_old_file(self) -> None:
        """A directory where the file should be is an error, and nothing changes."""
        self.path.mkdir()
        self.assertRaises(OSError, write_atomic, self.path, "new")
        self.assertEqual(os.listdir(self.directory), ["file"])

    def test_only_durable_files_wait_for_the_disk(self) -> None:
        """write_durable returns after content and directory; write_atomic waits for none."""
        synced: list[str] = []
        self.patch(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
        write_atomic(self.path, "new")
        write_if_changed(self.path, "newer")
        self.assertEqual(synced, [])
        write_durable(self.path, "newest", 0o600)
        where = os.path.realpath(self.directory)
        self.assertEqual(synced, [f"{where}/.file.new", where])
        self.assertEqual(self.path.read_text(), "newest")
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_no_link_is_followed(self) -> None:
        """A link planted at the temporary name is not followed."""
        victim = self.directory / "victim"
        victim.write_text("safe")
        (self.directory / ".file.new").symlink_to(victim)
        self.assertRaises(OSError, write_atomic, self.path, "new")
        self.assertEqual(victim.read_text(), "safe")

    def test_if_changed(self) -> None:
        """It tells whether it wrote, and makes the directory."""
        path = self.directory / "sub" / "file"
        self.assertTrue(write_if_changed(path, "a"))
        self.assertFalse(write_if_changed(path, b"a"))
        self.assertTrue(write_if_changed(path, "b"))


class _Turning(Clock):
    def runUntilCurrent(self) -> None:
        self.advance(0)


class TurnMonitorTests(SynchronousTestCase):
    def test_long_turn(self) -> None:
        """A turn that burns CPU is told with what was running; a short one is not."""
        reactor, long = _Turning(), []
        monitor = TurnMonitor(reactor, lambda spent, stack: long.append((spent, stack)), 0.02)
        monitor.start()
        try:
            reactor.runUntilCurrent()
            self.assertEqual(long, [])
            reactor.callLater(0, _burn, 0.2)
            reactor.runUntilCurrent()
            reactor.runUntilCurrent()
        finally:
            monitor.stop()
        ((spent, stack),) = long
        self.assertGreater(spent, 0.02)
        self.assertIn("_burn", stack)
        self.assertEqual(monitor.turns, 3)
        self.assertEqual(monitor.longest, spent)
        self.assertIs(reactor.runUntilCurrent.__func__, _Turning.runUntilCurrent)


def _burn(seconds: float) -> None:
    import time

    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))
