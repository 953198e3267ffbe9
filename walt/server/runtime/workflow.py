"""Named workflows: ordered steps with time limits and undo (design D9).

A step is a function ``wf_<name>(wf, value1, value2, **env)``: it gets the
workflow and the named values of its environment, and returns None, a Deferred
or a coroutine. The next step starts when the previous one is done.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from walt.server.runtime.waiting import Waiters

_log = Logger()

Step = Callable[..., Any]

CANCELLED_AT_ONCE = 20  # workflows, in one turn of the reactor


def step(
    limit: float | Callable[..., float] | None = None, undo: Step | None = None
) -> Callable[[Step], Step]:
    """Give a step a time limit in seconds, and a step that undoes it.

    A limit that depends on how much there is to do is a function of the environment.
    """

    def decorate(function: Step) -> Step:
        function.limit = limit  # type: ignore[attr-defined]
        function.undo = undo  # type: ignore[attr-defined]
        return function

    return decorate


def _name(function: Step) -> str:
    return getattr(function, "__name__", repr(function)).removeprefix("wf_")


class Interrupted(Exception):
    """A step ended its workflow on purpose; not a failure."""


class Progress(NamedTuple):
    """What `walt advanced workflows` shows of a running workflow; ages in seconds."""

    name: str
    step: str
    age: float
    step_age: float
    remaining: tuple[str, ...]


class Workflows:
    """The running workflows of the server."""

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self._running: dict[Workflow, Deferred[Any]] = {}
        self._idle: Waiters[None] = Waiters()

    def create(self, name: str, steps: Iterable[Step], **env: Any) -> Workflow:
        """Make a workflow; `run()` starts it."""
        return Workflow(self, name, steps, env)

    def running(self) -> list[Progress]:
        """Return what is going on now, the oldest first."""
        return [wf.progress() for wf in self._running]

    def _started(self, wf: Workflow, done: Deferred[Any]) -> None:
        self._running[wf] = done

    def _ended(self, wf: Workflow) -> None:
        self._running.pop(wf, None)
        if not self._running:
            self._idle.release(None)

    async def stop(self, patience: float) -> None:
        """Wait `patience` seconds for running workflows, then cancel what remains."""
        if self._running:
            idle = self._idle.wait()
            timer = self.clock.callLater(patience, idle.cancel)
            try:
                await idle
            except CancelledError:
                pass
            finally:
                if timer.active():
                    timer.cancel()
        cancelled: set[Workflow] = set()
        while left := [wf for wf in self._running if wf not in cancelled]:
            for wf in left[:CANCELLED_AT_ONCE]:
                cancelled.add(wf)
                if wf not in self._running:
                    continue  # it ended when others were cancelled
                _log.warn(
                    "workflow {name} ended before its steps {steps}",
                    name=wf.name, steps=", ".join(wf.progress().remaining),
                )
                self._running[wf].cancel()
            if len(left) > CANCELLED_AT_ONCE:
                await deferLater(self.clock, 0)


class Workflow:
    """One run of a list of steps over a shared environment."""

    def __init__(
        self, owner: Workflows, name: str, steps: Iterable[Step], env: dict[str, Any]
    ) -> None:
        self.name = name
        self.env = env
        self._owner = owner
        self._steps = deque(steps)
        self._done: list[Step] = []
        self._step = ""
        self._born = self._step_born = owner.clock.seconds()

    def insert_steps(self, steps: Iterable[Step]) -> None:
        """Add steps to be run next, before the remaining ones."""
        self._steps.extendleft(reversed(list(steps)))

    def update_env(self, **env: Any) -> None:
        """Change named values for the following steps."""
        self.env.update(env)

    def interrupt(self) -> None:
        """End the workflow here: no later step, no undo, no error."""
        raise Interrupted

    def progress(self) -> Progress:
        """Return the current step and the remaining ones."""
        now = self._owner.clock.seconds()
        return Progress(
            self.name, self._step, now - self._born, now - self._step_born,
            tuple(_name(pending) for pending in self._steps),
        )

    def run(self) -> Deferred[dict[str, Any]]:
        """Start; fires with the environment, or fails as the failing step did."""
        done = Deferred.fromCoroutine(self._run())
        if not done.called:
            self._owner._started(self, done)
        return done

    async def _run(self) -> dict[str, Any]:
        try:
            while self._steps:
                current = self._steps.popleft()
                self._step, self._step_born = _name(current), self._owner.clock.seconds()
                await self._call(current)
                self._done.append(current)
        except Interrupted:
            self._steps.clear()
        except (Exception, CancelledError):
            _log.warn("workflow {name} failed at {step}", name=self.name, step=self._step)
            await self._undo()
            raise
        finally:
            self._owner._ended(self)
        return self.env

    async def _call(self, function: Step) -> None:
        running = maybeDeferred(self._invoke, function)
        limit = getattr(function, "limit", None)
        if callable(limit):
            limit = limit(**self.env)
        if limit is not None:
            running.addTimeout(limit, self._owner.clock)
        await running

    def _invoke(self, function: Step) -> Any:
        result = function(self, **self.env)
        return Deferred.fromCoroutine(result) if inspect.iscoroutine(result) else result

    async def _undo(self) -> None:
        for done in reversed(self._done):
            undo = getattr(done, "undo", None)
            if undo is None:
                continue
            try:
                await self._call(undo)
            except Exception:
                _log.failure("undoing {step} of {name}", step=_name(done), name=self.name)
