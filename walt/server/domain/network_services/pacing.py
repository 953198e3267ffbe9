"""When to restart or reload a daemon after its configuration changed.

Rules of design D2 and §8 (dhcpd restarts), spec server §1.1 (throttle).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from walt.server.runtime.waiting import Waiters

_log = Logger()

WRITE_WITHIN = 0.01  # seconds; changes are merged before, the file must be there 0.2 s after one
BETWEEN_RESTARTS = 5.0
QUIET = 2.0  # seconds without a lease event
LONGEST_CALM = 30.0


class Pacer:
    """One action at a time, at least `gap` seconds apart, changes in between merged.

    `clock` gives seconds and callLater; `write` puts the wanted configuration
    in place; `act` restarts or reloads the daemon and returns a Deferred that
    fires when that is done. A calm change (see `changed`) waits for `quiet`
    seconds without `activity`, `longest_calm` at most.
    """

    def __init__(
        self, clock: IReactorTime, write: Callable[[], None], act: Callable[[], Deferred[None]], *,
        gap: float = BETWEEN_RESTARTS, write_within: float = WRITE_WITHIN,
        quiet: float = QUIET, longest_calm: float = LONGEST_CALM,
    ) -> None:
        self._clock, self._write, self._act = clock, write, act
        self._gap, self._write_within = gap, write_within
        self._quiet, self._longest_calm = quiet, longest_calm
        self._acting = False
        self._stopped = False
        self._written = True
        self._urgent = False
        self._calm_since: float | None = None
        self._last_end = float("-inf")
        self._last_activity = float("-inf")
        self._writing: IDelayedCall | None = None
        self._waking: IDelayedCall | None = None
        self._waiters: Waiters[None] = Waiters()

    @property
    def pending(self) -> bool:
        """Whether a change waits for its restart or reload."""
        return self._urgent or self._calm_since is not None

    def changed(self, *, calm: bool = False) -> Deferred[None]:
        """Tell that the wanted configuration changed; fires when it is in force."""
        waiter = self._waiters.wait()
        if not calm:
            self._urgent = True
        elif self._calm_since is None:
            self._calm_since = self._clock.seconds()
        self._written = False
        if self._writing is None:
            self._writing = self._clock.callLater(self._write_within, self._write_now)
        self._plan()
        return waiter

    def activity(self) -> None:
        """Tell that a lease event was seen now."""
        self._last_activity = self._clock.seconds()

    def started(self) -> None:
        """Tell that the daemon was just started with the wanted configuration."""
        self._settle_write()
        self._urgent, self._calm_since = False, None
        self._last_end = self._clock.seconds()
        self._waiters.release(None)

    def hold(self, busy: Deferred[None]) -> None:
        """Act on nothing before `busy` fires: the daemon is starting."""
        self._acting = True
        busy.addBoth(lambda _: self._done(Waiters()))

    def stop(self) -> None:
        """Forget every plan; those who wait are released."""
        self._stopped = True
        for call in (self._writing, self._waking):
            if call is not None and call.active():
                call.cancel()
        self._writing = self._waking = None
        self._waiters.release(None)

    def resume(self) -> None:
        """Work again after `stop`."""
        self._stopped = False

    def _write_now(self) -> None:
        self._writing = None
        try:
            self._write()
            self._written = True
        except OSError:
            _log.failure("writing the configuration of a service")
            self._writing = self._clock.callLater(1.0, self._write_now)
            return
        self._plan()

    def _settle_write(self) -> None:
        if self._writing is not None and self._writing.active():
            self._writing.cancel()
        self._writing, self._written = None, True

    def _due(self) -> float | None:
        earliest = self._last_end + self._gap
        if self._urgent:
            return earliest
        if self._calm_since is None:
            return None
        quiet = max(self._calm_since, self._last_activity) + self._quiet
        return max(earliest, min(quiet, self._calm_since + self._longest_calm))

    def _plan(self) -> None:
        if self._acting or self._stopped or not self._written:
            return
        due = self._due()
        if due is None:
            return
        if self._waking is not None and self._waking.active():
            self._waking.cancel()
        delay = max(0.0, due - self._clock.seconds())
        self._waking = self._clock.callLater(delay, self._wake)

    def _wake(self) -> None:
        self._waking = None
        due = self._due()
        if due is None or self._acting or not self._written:
            return
        if due > self._clock.seconds():
            self._plan()
            return
        self._urgent, self._calm_since = False, None
        self._acting = True
        covered = self._waiters.taken()
        self._act().addErrback(
            lambda failure: _log.failure("restarting or reloading a service", failure)
        ).addBoth(lambda _: self._done(covered))

    def _done(self, covered: Waiters[None]) -> None:
        self._acting = False
        self._last_end = self._clock.seconds()
        covered.release(None)
        self._plan()
