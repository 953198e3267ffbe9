"""Ask supervised daemons whether they really answer, and restart one that does not.

A process that lives may be stopped, have lost a thread, or not have taken its
configuration. Who supervises a daemon with something `Kept` gives it a `Watch`
with a probe:

    async def answers() -> None:
        reply = await ask_stream(endpoint, first_bytes, send=CALL)
        if reply is a refusal:
            raise NoAnswer("refuses NULL calls")

    self.watch = Watch(reactor, self.child, answers)

Nothing has to be started or stopped: the watch follows the child.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.errors import in_words
from walt.server.runtime.kept import Kept
from walt.server.runtime.waiting import Waiters

_log = Logger()

SOON = 1.0  # seconds between questions to a daemon that is starting
LATE = 2.0  # seconds of delay of our own by which a missing answer proves nothing
LONGEST_PATIENCE = 16  # times as many failures, for a daemon that restarts do not mend

# Asks a daemon once. Raises NoAnswer; the watch cancels it at its limit. Another
# exception means that it could not be asked, which says nothing about the daemon.
Probe = Callable[[], Coroutine[Any, Any, None]]


class NoAnswer(Exception):
    """What a daemon did instead of answering, in a few words."""


class Disobeys(NoAnswer):
    """It answers, but not with what it was told: reading its files again may help."""


class Patience(NamedTuple):
    """When a daemon counts as not answering. Times are in seconds.

    It is asked each `every`, and has `limit` to answer; `failures` in a row are
    too many. Failures during `settling`, after a start or a reload, do not count.
    """

    every: float = 15.0
    limit: float = 10.0
    failures: int = 3
    settling: float = 30.0


class Watch:
    """Ask one daemon at intervals; see the module.

    `clock` gives callLater and seconds. `remind` makes the daemon read its files
    again: tried once before a restart when it disobeys. `on_answer` is called at
    each good answer. When restarts do not help, each one waits for twice as many
    failures as the one before. `settling` is asked how long a start takes at present, where
    that of `patience` is not enough.
    """

    def __init__(
        self, clock: IReactorTime, child: Kept, probe: Probe, *,
        remind: Callable[[], object] | None = None,
        on_answer: Callable[[], None] | None = None, patience: Patience | None = None,
        settling: Callable[[], float] | None = None,
    ) -> None:
        self._clock, self._child, self._probe = clock, child, probe
        self._remind, self._on_answer = remind, on_answer
        self._patience = patience or Patience()
        self._settling = settling or (lambda: self._patience.settling)
        self._asking: Deferred[None] | None = None
        self._next: IDelayedCall | None = None
        self._begun = 0.0
        self._settled = 0.0
        self._failures = 0
        self._confirmed = False  # since the start of its process
        self._reminded = False  # since its last answer, as the next one
        self._restarts = 0
        self._restarting: Deferred[None] | None = None
        self._unable: str | None = None
        self._waiting: Waiters[bool] = Waiters()
        child.observe(self._follow)

    def settle(self) -> None:
        """Give the daemon time: it was told to do something."""
        self._failures = 0
        self._settled = self._clock.seconds() + self._settling()

    def answered(self) -> Deferred[bool]:
        """Tell when the present process has answered.

        Fires with False when it ends, is not there, cannot be asked, or does not
        answer within `settling` and one question more.
        """
        if self._confirmed or not self._child.alive:
            return succeed(self._confirmed)
        return self._waiting.wait()

    def _follow(self, alive: bool) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        asking, self._asking, self._next = self._asking, None, None
        if asking is not None:
            asking.cancel()
        self._confirmed = False
        if alive:
            self.settle()
            self._plan(0.0)
        else:
            self._waiting.release(False)

    def _plan(self, delay: float) -> None:
        self._next = self._clock.callLater(delay, self._ask)

    def _ask(self) -> None:
        if not self._child.running or self._restarting is not None:
            self._plan(self._patience.every)
            return
        self._begun = self._clock.seconds()
        asking = self._asking = Deferred.fromCoroutine(self._probe())
        asking.addTimeout(self._patience.limit, self._clock)
        asking.addBoth(partial(self._told, asking))

    def _told(self, asking: Deferred[None], result: object) -> None:
        if asking is not self._asking:
            return  # its process has ended meanwhile
        self._asking = None
        try:
            self._judge(result)
        except Exception:
            _log.failure("judging whether {child} answers", child=self._child.spec.name)
        if self._next is None or not self._next.active():
            now = self._clock.seconds()
            starting = not self._confirmed and now < self._settled
            regular = self._begun + self._patience.every - now
            self._plan(SOON if starting else max(SOON, regular))

    def _judge(self, result: object) -> None:
        if not isinstance(result, Failure):
            self._good()
        elif result.check(TimeoutError):
            # A server that was itself held up has not even looked for the answer.
            if self._clock.seconds() - self._begun <= self._patience.limit + LATE:
                self._bad(NoAnswer(f"no answer within {self._patience.limit:g} s"))
        elif isinstance(result.value, NoAnswer):
            self._bad(result.value)
        else:
            self._cannot_ask(result)

    def _good(self) -> None:
        child = self._child
        self._failures = self._restarts = 0
        self._reminded, self._confirmed, self._unable = False, True, None
        if not child.answering:
            _log.info("{child} answers again", child=child.spec.name)
        child.answers()
        if self._on_answer is not None:
            self._on_answer()
        self._waiting.release(True)

    def _cannot_ask(self, failure: Failure) -> None:
        reason = in_words(failure.value)
        if reason != self._unable and self._begun >= self._settled:  # not while it starts
            self._unable = reason
            _log.warn(
                "cannot ask {child} whether it answers: {reason}",
                child=self._child.spec.name, reason=reason,
            )
        self._waiting.release(False)

    def _bad(self, problem: NoAnswer) -> None:
        if self._begun < self._settled:
            return
        self._waiting.release(False)
        self._failures += 1
        patience = min(2 ** self._restarts, LONGEST_PATIENCE)
        if self._failures < self._patience.failures * patience:
            return
        self._failures = 0
        child, reason = self._child, str(problem)
        if child.answering:
            _log.warn(
                "{child} runs but does not answer as it should: {reason}",
                child=child.spec.name, reason=reason,
            )
        child.does_not_answer(reason)
        if isinstance(problem, Disobeys) and self._remind is not None and not self._reminded:
            self._reminded = True
            self.settle()
            self._remind()
            return
        self._restarts += 1
        _log.info("restarting {child}, which does not answer", child=child.spec.name)
        self._restarting = child.restart()
        self._restarting.addBoth(self._restarted)

    def _restarted(self, _: object) -> None:
        self._restarting = None
