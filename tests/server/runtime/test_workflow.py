from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import NotFound
from walt.server.runtime.workflow import CANCELLED_AT_ONCE, Workflow, Workflows, step


class WorkflowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.workflows = Workflows(self.clock)
        self.trace: list[str] = []
        self.gate: Deferred[None] = Deferred()

    def wf_note(self, wf: Workflow, word: str, **env: Any) -> None:
        """A step that is done at once."""
        self.trace.append(word)

    async def wf_wait(self, wf: Workflow, **env: Any) -> None:
        """A step that waits."""
        self.trace.append("waiting")
        await self.gate
        self.trace.append("waited")

    def wf_deferred(self, wf: Workflow, **env: Any) -> Deferred[None]:
        """A step that returns a Deferred."""
        return self.gate

    def run_steps(self, *steps: Any, **env: Any) -> Deferred[dict[str, Any]]:
        """Run a workflow."""
        return self.workflows.create("test", steps, **env).run()

    def test_order(self) -> None:
        """The next step starts when the previous one is done."""
        done = self.run_steps(self.wf_wait, self.wf_note, word="last")
        self.assertEqual(self.trace, ["waiting"])
        self.gate.callback(None)
        self.assertEqual(self.successResultOf(done), {"word": "last"})
        self.assertEqual(self.trace, ["waiting", "waited", "last"])
        self.assertEqual(self.workflows.running(), [])

    def test_progress(self) -> None:
        """A running workflow shows its step, its ages and what remains."""
        self.run_steps(self.wf_note, self.wf_deferred, self.wf_note, word="x")
        self.clock.advance(5)
        (one,) = self.workflows.running()
        self.assertEqual((one.name, one.step, one.age, one.step_age, one.remaining),
                         ("test", "deferred", 5, 5, ("note",)))

    def test_insert_and_update(self) -> None:
        """A step adds steps that come next, in order, and changes values for them."""

        def wf_more(wf: Workflow, **env: Any) -> None:
            wf.insert_steps([self.wf_note, wf_second])
            wf.update_env(word="first", number=2)

        def wf_second(wf: Workflow, number: int, **env: Any) -> None:
            self.trace.append(f"number {number}")
            wf.update_env(word="end")

        result = self.successResultOf(self.run_steps(wf_more, self.wf_note, word="old"))
        self.assertEqual(self.trace, ["first", "number 2", "end"])
        self.assertEqual(result, {"word": "end", "number": 2})

    def test_limit_of_how_much_there_is(self) -> None:
        """A step on twice as many things may take twice as long."""

        @step(limit=lambda things, **env: 10.0 * len(things))
        def wf_long(wf: Workflow, **env: Any) -> Deferred[None]:
            return self.gate

        done = self.run_steps(wf_long, things="ab")
        self.clock.advance(19)
        self.assertNoResult(done)
        self.clock.advance(1)
        self.failureResultOf(done, TimeoutError)

    def test_interrupt(self) -> None:
        """An interrupt ends it: no later step, no undo, no error."""
        undone = []

        @step(undo=lambda wf, **env: undone.append(1))
        def wf_first(wf: Workflow, **env: Any) -> None:
            return None

        done = self.run_steps(wf_first, lambda wf, **env: wf.interrupt(), self.wf_note, word="x")
        self.assertEqual(self.successResultOf(done), {"word": "x"})
        self.assertEqual((self.trace, undone), ([], []))

    def undoing(self, name: str) -> Any:
        """Return a step with an undo that notes its name."""

        def undo(wf: Workflow, **env: Any) -> None:
            self.trace.append(f"undo {name}")
            if name == "b":
                raise OSError("undo failed")

        @step(undo=undo)
        def wf_done(wf: Workflow, **env: Any) -> None:
            self.trace.append(name)

        return wf_done

    def test_failure_undoes_in_reverse(self) -> None:
        """A failure undoes what was done, the last first, and a failing undo keeps no other up."""

        def wf_fail(wf: Workflow, **env: Any) -> None:
            raise NotFound("no such image")

        done = self.run_steps(self.undoing("a"), self.undoing("b"), self.undoing("c"), wf_fail)
        self.assertEqual(str(self.failureResultOf(done, NotFound).value), "no such image")
        self.assertEqual(self.trace, ["a", "b", "c", "undo c", "undo b", "undo a"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_limit(self) -> None:
        """A step that takes too long is cancelled, and its workflow fails."""

        @step(limit=30)
        async def wf_slow(wf: Workflow, **env: Any) -> None:
            await self.gate

        done = self.run_steps(self.undoing("a"), wf_slow)
        self.clock.advance(29)
        self.assertNoResult(done)
        self.clock.advance(1)
        self.failureResultOf(done, TimeoutError)
        self.assertEqual(self.trace, ["a", "undo a"])
        self.assertTrue(self.gate.called)

    def test_cancelled(self) -> None:
        """Cancelling a workflow cancels its step and undoes the others."""
        done = self.run_steps(self.undoing("a"), self.wf_deferred)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(self.trace, ["a", "undo a"])
        self.assertEqual(self.workflows.running(), [])

    def test_stop_waits(self) -> None:
        """At stop running workflows get their time."""
        done = self.run_steps(self.wf_deferred)
        stopped = Deferred.fromCoroutine(self.workflows.stop(10))
        self.clock.advance(9)
        self.assertNoResult(stopped)
        self.gate.callback(None)
        self.successResultOf(done)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_reports_what_is_dropped(self) -> None:
        """What does not end in time is cancelled, undone and reported with its steps."""
        from twisted.logger import globalLogPublisher

        seen: list[Any] = []
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        done = self.run_steps(self.undoing("a"), self.wf_deferred, self.wf_note, word="x")
        stopped = Deferred.fromCoroutine(self.workflows.stop(10))
        self.clock.advance(10)
        self.successResultOf(stopped)
        self.failureResultOf(done, CancelledError)
        dropped = [one for one in seen if "ended before its steps" in one.get("log_format", "")]
        self.assertEqual([one["steps"] for one in dropped], ["note"])
        self.assertEqual(self.trace, ["a", "undo a"])

    def test_stop_of_many(self) -> None:
        """The reactor gets a turn now and then."""
        def wf_waiting(wf: Workflow, **env: Any) -> Deferred[None]:
            return Deferred()

        class Turns(Clock):
            """Counts pauses."""

            pauses = 0

            def callLater(self, when: float, *args: Any, **kwargs: Any) -> Any:
                self.pauses += when == 0
                return super().callLater(when, *args, **kwargs)

        clock = Turns()
        workflows = Workflows(clock)
        runs = [workflows.create("w", [wf_waiting]).run() for _ in range(2 * CANCELLED_AT_ONCE)]
        stopped = Deferred.fromCoroutine(workflows.stop(10))
        clock.advance(10)
        self.successResultOf(stopped)
        for done in runs:
            self.failureResultOf(done, CancelledError)
        self.assertEqual(clock.pauses, 1)

    def test_stop_without_workflow(self) -> None:
        """Nothing to wait for."""
        self.successResultOf(Deferred.fromCoroutine(self.workflows.stop(10)))
