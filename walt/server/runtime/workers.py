"""A pool of child processes for work that blocks (design §2).

A worker speaks AMP boxes over its standard input and output: one command,
`work`, with a job name and JSON arguments; it answers JSON. Workers start on
demand, do one job at a time and end after 30 s without work. A job that is silent for
too long, or that nobody waits for any more, is ended: TERM, then KILL.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common import ampbox
from walt.common.errors import ERRORS, InternalError, Unavailable
from walt.server.runtime.process import Launcher, Network, environment, give, own_code
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.waiting import Waiters

_log = Logger()

IDLE_LIFE = 30.0
SILENCE = 600.0  # seconds without an answer or a word of progress, unless a job says otherwise
GRACE = 5.0  # seconds to clean up, for a child that must end


class _Worker(ProcessProtocol):
    """The server's end of one child."""

    def __init__(self, pool: WorkerPool, clock: IReactorTime) -> None:
        self._pool = pool
        self._clock = clock
        self._decoder = ampbox.Decoder()
        self._answer: Deferred[Any] | None = None
        self._on_progress: Callable[[str], None] | None = None
        self._patience = 0.0
        self._silence: IDelayedCall | None = None
        self._end: IDelayedCall | None = None
        self.idle_timer: Any = None

    def start(
        self, job: str, arguments: Mapping[str, Any], silence: float,
        on_progress: Callable[[str], None] | None,
    ) -> Deferred[Any]:
        self._answer = Deferred(lambda _: self.terminate())
        self._on_progress = on_progress
        self._patience = silence
        self._silence = self._clock.callLater(silence, self._too_long, job, silence)
        box = {b"job": job.encode(), b"arguments": json.dumps(arguments).encode()}
        assert self.transport is not None
        give(self.transport, ampbox.encode(box))
        return self._answer

    def _too_long(self, job: str, silence: float) -> None:
        _log.error("the job {job} was silent for {s:g} s: it is ended", job=job, s=silence)
        self.terminate()
        answer, self._answer = self._answer, None
        if answer is not None and not answer.called:
            answer.errback(Unavailable(
                f"the server gave up a job ({job}) that was silent for {silence:g} s;"
                " try again, or ask its administrator to look at its log"
            ))

    def terminate(self) -> None:
        """End the child; it may clean up."""
        if self._end is None:
            self._signal("TERM")
            self._end = self._clock.callLater(GRACE, self.kill)

    def kill(self) -> None:
        """End the child at once."""
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        self._cancel_timers()
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess(name)

    def _cancel_timers(self) -> None:
        for timer in (self._silence, self._end):
            if timer is not None and timer.active():
                timer.cancel()

    def outReceived(self, data: bytes) -> None:
        for box in self._decoder.feed(data):
            if self._end is not None:
                return  # nobody waits for it
            progress = ampbox.join_value(b"progress", box)
            if progress is not None:
                if self._silence is not None and self._silence.active():
                    self._silence.reset(self._patience)
                if self._on_progress is not None:
                    self._on_progress(progress.decode(errors="replace"))
                continue
            answer, self._answer = self._answer, None
            self._cancel_timers()
            self._pool._free(self)
            if answer is None or answer.called:
                continue
            text = (ampbox.join_value(b"error", box) or b"").decode(errors="replace")
            if text:
                code = box.get(b"code", b"").decode()
                answer.errback(ERRORS.get(code, InternalError)(text))
            else:
                answer.callback(json.loads(ampbox.join_value(b"result", box) or b"null"))

    def errReceived(self, data: bytes) -> None:
        _log.info("worker: {text}", text=data.decode(errors="replace").rstrip())

    def processEnded(self, reason: Failure) -> None:
        self._cancel_timers()
        self._pool._gone(self)
        answer, self._answer = self._answer, None
        if answer is not None and not answer.called:
            answer.errback(Unavailable("a worker process of the server was killed; try again"))


class WorkerPool:
    """At most `size` children; further jobs wait their turn.

    Children for the jobs of the modules `unprivileged` give up root at once. `variables` are
    more of the environment of children.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, *, size: int = 2, network: Network = "walt",
        module: str = "walt.server.workers.main", unprivileged: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._reactor = reactor
        self._launcher = launcher
        self._size = size
        self._network = network
        self._module = module
        self._variables = variables or {}
        self._options = ["--unprivileged", *unprivileged] if unprivileged else []
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._waiting: deque[Deferred[_Worker]] = deque()
        self._stopping = False
        self._over: Waiters[None] = Waiters()  # of those who wait for the end of all children

    async def call(
        self, job: str, arguments: Mapping[str, Any] | None = None, *,
        silence: float = SILENCE, on_progress: Callable[[str], None] | None = None,
    ) -> Any:
        """Run `module:function` of walt.server.workers with JSON arguments.

        Returns its JSON result. Raises the WaltError that the job raised,
        InternalError for a bug in it, Unavailable when the child was killed, or was silent
        for `silence` seconds. Cancelling the awaiting coroutine ends the child.
        """
        if self._stopping:
            raise Unavailable("the server is stopping")
        worker = await self._take()
        return await worker.start(job, arguments or {}, silence, on_progress)

    def _take(self) -> Deferred[_Worker]:
        taken: Deferred[_Worker] = Deferred()
        if self._idle:
            worker = self._idle.pop()
            worker.idle_timer.cancel()
            taken.callback(worker)
        elif len(self._workers) < self._size:
            taken.callback(self._spawn())
        else:
            self._waiting.append(taken)
        return taken

    def _spawn(self) -> _Worker:
        worker = _Worker(self, self._reactor)
        argv = self._launcher.command(
            [sys.executable, "-m", self._module, *self._options], network=self._network
        )
        env = environment({"PYTHONUNBUFFERED": "1", **own_code(), **self._variables})
        self._reactor.spawnProcess(worker, argv[0], argv, env)
        self._workers.add(worker)
        return worker

    def _free(self, worker: _Worker) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.called:
                waiting.callback(worker)
                return
        worker.idle_timer = self._reactor.callLater(IDLE_LIFE, self._retire, worker)
        self._idle.append(worker)

    def _retire(self, worker: _Worker) -> None:
        self._idle.remove(worker)
        assert worker.transport is not None
        worker.transport.closeStdin()

    def _gone(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
            if worker.idle_timer.active():
                worker.idle_timer.cancel()
        while self._waiting and len(self._workers) < self._size and not self._stopping:
            waiting = self._waiting.popleft()
            if not waiting.called:
                waiting.callback(self._spawn())
        if not self._workers:
            self._over.release(None)

    def stop(self) -> Deferred[None]:
        """Kill every child; jobs in progress fail with Unavailable. Fires when all are gone."""
        self._stopping = True
        over = self._over.wait() if self._workers else succeed(None)
        for worker in list(self._idle):
            worker.idle_timer.cancel()
        self._idle.clear()
        for worker in list(self._workers):
            worker.kill()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.called:
                waiting.errback(Unavailable("the server is stopping"))
        return over
