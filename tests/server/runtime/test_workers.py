from __future__ import annotations

import os
import pwd
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.fakes.processes import ProcessClock
from tests.patience import patient
from walt.common import ampbox
from walt.common.errors import InternalError, NotFound, Unavailable
from walt.server.runtime.process import Launcher
from walt.server.runtime.workers import GRACE, IDLE_LIFE, SILENCE, WorkerPool
from walt.server.workers import build_context
from walt.server.workers.main import answer, find

ROOT = Path(__file__).resolve().parents[3]


def call(pool: WorkerPool, *words: Any, **options: Any) -> Deferred[Any]:
    """Start a job."""
    return Deferred.fromCoroutine(pool.call(*words, **options))


class PoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = ProcessClock()
        self.pool = WorkerPool(self.clock, Launcher(), size=2)

    def reply(self, number: int, **box: bytes) -> None:
        """One child answers."""
        raw = ampbox.encode({key.encode(): value for key, value in box.items()})
        for at in range(0, len(raw), 7):
            self.clock.processes[number].protocol.outReceived(raw[at:at + 7])

    def test_answers(self) -> None:
        """A result, a declared error, a bug: each arrives as what it is."""
        result, missing, bug = (call(self.pool, "a:b", {"x": 1}) for _ in range(3))
        self.assertEqual(len(self.clock.processes), 2)
        self.reply(0, result=b'{"y": [1, 2]}')
        self.assertEqual(self.successResultOf(result), {"y": [1, 2]})
        self.reply(1, error=b"no such tree", code=b"NOT_FOUND")
        self.failureResultOf(missing, NotFound)
        self.reply(0, error=b"KeyError: 'x'", code=b"INTERNAL")
        self.failureResultOf(bug, InternalError)

    def test_jobs_wait_their_turn(self) -> None:
        """No more children than the size of the pool; waiting jobs go on in order."""
        jobs = [call(self.pool, f"a:b{number}") for number in range(4)]
        self.assertEqual(len(self.clock.processes), 2)
        self.reply(1, result=b"1")
        self.assertIn(b"b2", self.clock.processes[1].written)
        self.reply(0, result=b"0")
        self.reply(1, result=b"2")
        self.reply(0, result=b"3")
        self.assertEqual([self.successResultOf(job) for job in jobs], [0, 1, 2, 3])

    def test_long_answer(self) -> None:
        """An answer above 65,535 bytes is one answer."""
        job = call(self.pool, "a:b")
        self.reply(0, result=b'"' + b"x" * 200_000 + b'"')
        self.assertEqual(len(self.successResultOf(job)), 200_000)

    def test_progress(self) -> None:
        """Progress reaches the caller before the answer."""
        seen: list[str] = []
        job = call(self.pool, "a:b", on_progress=seen.append)
        self.reply(0, progress=b"10 %")
        self.assertEqual(seen, ["10 %"])
        self.reply(0, result=b"null")
        self.successResultOf(job)

    def test_killed_child(self) -> None:
        """The job of a killed child fails, and another child takes the next one."""
        jobs = [call(self.pool, "a:b") for _ in range(3)]
        self.clock.processes[0].end(signal=9)
        self.failureResultOf(jobs[0], Unavailable)
        self.assertEqual(len(self.clock.processes), 3)
        self.reply(2, result=b"1")
        self.assertEqual(self.successResultOf(jobs[2]), 1)

    def test_cancelled_job(self) -> None:
        """Cancelling a job ends its child, which may clean up; what it says then is nothing."""
        job = call(self.pool, "a:b")
        job.cancel()
        self.failureResultOf(job, CancelledError)
        self.assertEqual(self.clock.processes[0].signals, ["TERM"])
        self.reply(0, result=b"1")
        other = call(self.pool, "a:b")
        self.assertEqual(len(self.clock.processes), 2)
        self.clock.advance(GRACE)
        self.assertEqual(self.clock.processes[0].signals, ["TERM", "KILL"])
        self.clock.processes[0].end(signal=9)
        self.assertNoResult(other)

    def test_silent_job(self) -> None:
        """A job without a sign of life is ended; the next one has its place."""
        silent, long = call(self.pool, "a:silent"), call(self.pool, "a:b", silence=1000.0)
        waiting = call(self.pool, "a:next")
        self.clock.advance(SILENCE - 1)
        self.reply(0, progress=b"half")
        self.clock.advance(SILENCE - 1)
        self.assertNoResult(silent)
        self.failureResultOf(long, Unavailable)
        self.clock.advance(1)
        self.assertIn("a:silent", str(self.failureResultOf(silent, Unavailable).value))
        self.assertEqual(self.clock.processes[0].signals, ["TERM"])
        self.clock.processes[0].end(status=143)
        self.assertIn(b"next", self.clock.processes[2].written)
        self.reply(2, result=b"1")
        self.assertEqual(self.successResultOf(waiting), 1)
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_cancelled_while_waiting(self) -> None:
        """A job cancelled before its turn is never started."""
        first, second = call(self.pool, "a:b"), call(self.pool, "a:b")
        waiting = call(self.pool, "a:never")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.reply(0, result=b"1")
        self.reply(1, result=b"2")
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertFalse(any(b"never" in one.written for one in self.clock.processes))

    def test_idle_children_end(self) -> None:
        """After 30 s without work a child gets the end of its input."""
        self.successResultOf_after(call(self.pool, "a:b"))
        self.clock.advance(IDLE_LIFE)
        self.assertTrue(self.clock.processes[0].stdin_closed)
        self.clock.processes[0].end()
        call(self.pool, "a:b")
        self.assertEqual(len(self.clock.processes), 2)

    def successResultOf_after(self, job: Deferred[Any]) -> None:
        self.reply(0, result=b"1")
        self.successResultOf(job)

    def test_idle_child_dies(self) -> None:
        """An idle child that dies is forgotten, its timer too."""
        self.successResultOf_after(call(self.pool, "a:b"))
        self.clock.processes[0].end(status=1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_job_between_retirement_and_end(self) -> None:
        """A child told to end gets no job any more."""
        self.successResultOf_after(call(self.pool, "a:b"))
        self.clock.advance(IDLE_LIFE)
        call(self.pool, "a:late")
        self.assertIn(b"late", self.clock.processes[1].written)

    def test_stop(self) -> None:
        """At stop children are killed, waiting jobs are told, nothing is scheduled."""
        jobs = [call(self.pool, "a:b") for _ in range(3)]
        self.pool.stop()
        self.failureResultOf(jobs[2], Unavailable)
        for process in self.clock.processes:
            self.assertEqual(process.signals, ["KILL"])
            process.end(signal=9)
        self.failureResultOf(jobs[0], Unavailable)
        self.failureResultOf(jobs[1], Unavailable)
        self.failureResultOf(call(self.pool, "a:b"), Unavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WorkerMainTests(SynchronousTestCase):
    def test_bad_job_names(self) -> None:
        """Only functions of modules of the package can be named."""
        for name in ("", "os:system", "main:main", "..x:y", "a.b:c", "A:b", "image_tree:__doc__"):
            self.assertRaises((ValueError, ImportError), find, name)

    def test_errors(self) -> None:
        """Every failure is an answer."""
        for box in ({b"job": b"main:x"}, {}, {b"job": b"image_tree:nothing_like_this"}):
            reply = answer(dict(box), lambda text: None)
            self.assertEqual(reply[b"code"], b"INTERNAL")
            self.assertTrue(reply[b"error"])


    def test_memory(self) -> None:
        """A job that reads what strangers send and takes too much memory fails as one."""

        def large(arguments: dict[str, Any], progress: Any) -> int:
            return len(bytearray(arguments["size"]))

        large.__module__ = build_context.__name__
        self.patch(build_context, "remove", large)
        before = resource.getrlimit(resource.RLIMIT_AS)
        for size, code in ((2 << 30, b"LIMIT_EXCEEDED"), (1, b"")):
            reply = answer(
                {b"job": b"build_context:remove", b"arguments": b'{"size": %d}' % size},
                lambda text: None,
            )
            self.assertEqual(reply.get(b"code", b""), code, reply)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_AS), before)


class TreeLauncher(Launcher):
    """Workers import the tree under test, wherever another one is installed."""

    def command(self, argv: Sequence[str], **options: Any) -> list[str]:
        """Return the vector, with PYTHONPATH."""
        return super().command(["env", f"PYTHONPATH={ROOT}", *argv], **options)


class RealWorkerTests(TestCase):
    timeout = patient(30)

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.pids: list[int] = []
        spawn = reactor.spawnProcess  # type: ignore[attr-defined]

        def spawning(*words: Any, **options: Any) -> Any:
            transport = spawn(*words, **options)
            self.pids.append(transport.pid)
            return transport

        self.patch(reactor, "spawnProcess", spawning)
        self.pool = WorkerPool(
            reactor, TreeLauncher(), module="tests.server.runtime.worker_child"
        )

    async def tearDown(self) -> None:
        self.pool.stop()
        while self.pool._workers:
            await deferLater(self.reactor, 0.02, lambda: None)

    async def test_killed_in_a_job(self) -> None:
        """A worker killed in the middle of a job fails that job alone."""
        started: Deferred[None] = Deferred()
        job = call(self.pool, "any:thing", {"do": "hang"},
                   on_progress=lambda text: started.callback(None))
        await started
        os.kill(self.pids[0], signal.SIGKILL)
        await self.assertFailure(job, Unavailable)
        self.assertEqual(await self.pool.call("any:thing", {"do": "echo"}), {"do": "echo"})
        self.assertEqual(len(self.pids), 2)

    async def test_ended_in_a_job(self) -> None:
        """A job that is given up cleans up."""
        started: Deferred[None] = Deferred()
        file = Path(self.mktemp())
        job = call(self.pool, "any:thing", {"do": "hang", "file": str(file.absolute())},
                   on_progress=lambda text: started.callback(None))
        await started
        job.cancel()
        await self.assertFailure(job, CancelledError)
        while self.pool._workers:
            await deferLater(self.reactor, 0.02, lambda: None)
        self.assertEqual(file.read_text(), "cleaned up")

    async def test_unprivileged(self) -> None:
        """A worker for what strangers send is nobody, can become nobody else, and does its jobs."""
        pool = WorkerPool(
            self.reactor, TreeLauncher(), module="tests.server.runtime.worker_child",
            unprivileged=["registry_api"],
        )
        told = await pool.call("any:thing", {"do": "tell"})
        pool.stop()
        while pool._workers:
            await deferLater(self.reactor, 0.02, lambda: None)
        self.assertEqual(
            told[:2] + told[3:], [str(pwd.getpwnam("nobody").pw_uid), "0" * 16, "1"]
        )
