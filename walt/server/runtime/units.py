"""Supervised daemons that are units of systemd: it runs them, the server watches over them.

`services.runner: systemd` in server.conf asks for it (spec server §1.1). The unit of daemon
`dhcpd` is walt-server-dhcpd.service; walt-server-setup writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface

from walt.common.errors import Unavailable, in_words
from walt.server.runtime.kept import ChildSpec, Kept
from walt.server.runtime.process import Launcher

_log = Logger()

_OURS = re.compile(r"walt-server-[a-z]+\.service")
JOURNAL = "walt"  # the log namespace of our units: a journal apart from that of the machine
RUNNING = ("active", "reloading")
ENDED = ("inactive", "failed")


class UnitState(NamedTuple):
    """What systemd says of a unit: its ActiveState, main process, and that one's last status.

    `result` is a word of systemd.service(5) on how it ended (`success`, `exit-code`, `signal`…).
    """

    active: str
    pid: int | None = None
    status: int = 0
    result: str = "success"


class Unseen(Unavailable):
    """An order was given, and what came of it is not known yet: who watches will be told."""


class IUnits(Interface):
    """What runs the units of our daemons. Failures: WaltError, in words.

    Orders fire with the state of the unit when the order was carried out. They fail with
    Unseen where nobody says so in time, with another Unavailable where nobody may have got them.
    """

    def restart(unit: str) -> Deferred[UnitState]:
        """Start a unit, or end it and start it again."""

    def reload(unit: str) -> Deferred[UnitState]:
        """Make its process read its files again, or start it."""

    def stop(unit: str) -> Deferred[UnitState]:
        """End it."""

    def watch(
        unit: str, on_state: Callable[[UnitState], None], on_line: Callable[[str], None]
    ) -> None:
        """Tell from now on each change of its state, and each line that its processes write."""


@dataclass(frozen=True)
class UnitLauncher(Launcher):
    """Starts daemons as units; other programs as any launcher does."""

    units: IUnits | None = None


def unit_of(name: str) -> str:
    """Return the unit of a daemon. Raises ValueError for a name that none of ours has."""
    unit = f"walt-server-{name}.service"
    if _OURS.fullmatch(unit) is None:
        raise ValueError(f"no unit of ours can have the name {unit}")
    return unit


class UnitService(Kept):
    """Keep the unit of one daemon running.

    The order of the server counts: a unit that ends by itself is started again as a child
    would be, after a pause that grows. A unit that runs already is started anew: its files may
    have changed while there was no server.
    """

    def __init__(
        self, clock: IReactorTime, units: IUnits, spec: ChildSpec, *,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(clock, spec, on_line=on_line)
        self._units, self._unit = units, unit_of(spec.name)
        self._alive = False
        self._pid: int | None = None
        self._orders = 0  # given so far: only the outcome of the last one counts
        self._ordered = False  # one is being carried out
        self._owed = False  # the order to start may have got to nobody
        units.watch(self._unit, self._changed, self._on_line)

    @property
    def alive(self) -> bool:
        """See Kept; it counts as alive from the order to start it on."""
        return self._alive

    @property
    def pid(self) -> int | None:
        """See Kept."""
        return self._pid

    def startService(self) -> None:
        """Start the daemon."""
        super().startService()
        self._spawn()

    def _spawn(self) -> None:
        self._start()

    def _start(self) -> Deferred[None]:
        self._pause, self._owed = None, False
        self._born = self._clock.seconds()
        # Before the order: what it writes at its start must find who waits for it.
        self._alive, self._pid = True, None
        self._tell(True)
        return self._give(self._units.restart(self._unit))

    def _give(self, order: Deferred[UnitState]) -> Deferred[None]:
        """Follow an order to start; fires when it is over, whatever came of it."""
        self._orders += 1
        self._ordered = True
        return order.addCallbacks(
            self._done, self._failed, callbackArgs=(self._orders,), errbackArgs=(self._orders,)
        )

    def _done(self, state: UnitState, number: int) -> None:
        if number != self._orders:
            return
        self._ordered = False
        self._changed(state)

    def _failed(self, failure: Failure, number: int) -> None:
        if number != self._orders:
            return
        self._ordered = False
        self._tell_trouble(failure)
        if failure.check(Unseen) is None and self.running and self._alive:
            self._owed = failure.check(Unavailable) is not None
            # No process has ended where nobody has got the order.
            self._restarts += 0 if self._owed else 1
            self._wait(1)

    def _tell_trouble(self, failure: Failure) -> None:
        words = in_words(failure.value)
        if failure.check(Unseen) is not None:
            _log.warn("{unit}: {words}", unit=self._unit, words=words)
            return
        _log.error("{unit}: {words}", unit=self._unit, words=words)
        self._note(lambda: words)

    def _changed(self, state: UnitState) -> None:
        if self._ordered:
            return  # the end of the order tells
        if state.active in RUNNING:
            if self._owed:
                return  # the former process, with its former files
            self._pid = state.pid
            if not self._alive and self.running:  # somebody else has started it
                self._wait_no_more()
                self._born = self._clock.seconds()
                self._alive = True
                self._tell(True)
        elif state.active in ENDED and self._alive and self.running:
            self._note(lambda: self._why(state))
            self._restarts += 1
            self._wait(state.status)

    def _why(self, state: UnitState) -> str:
        if state.active == "inactive" and state.result == "success":
            return (
                f"{self._unit} does not run: its conditions are not met, or somebody stopped it;"
                f" see: systemctl status {self._unit}"
            )
        return f"{self._unit} ended with status {state.status} ({state.result})"

    def _wait(self, status: int) -> None:
        """Start it again after a while."""
        self._alive, self._pid = False, None
        self._last_status = status
        self._tell(False)
        self._back_off(status)

    def reload(self) -> bool:
        """See Kept. One that does not read them goes on; who asks it finds that out."""
        if not self._alive:
            return False
        self._units.reload(self._unit).addCallbacks(self._changed, self._tell_trouble)
        return True

    def restart(self) -> Deferred[None]:
        """See Kept."""
        if not self.running:
            return succeed(None)
        self._wait_no_more()
        if self._alive:
            self._restarts += 1
            self._alive = False
            self._tell(False)
        return self._start()

    def _stop(self) -> Deferred[None]:
        self._orders += 1
        stopped = self._units.stop(self._unit)
        return stopped.addErrback(self._not_stopped).addCallback(self._gone)

    def _not_stopped(self, failure: Failure) -> None:
        # It is left to what systemd does when the unit of the server ends.
        _log.error("{unit}: {words}", unit=self._unit, words=in_words(failure.value))

    def _gone(self, _: object) -> None:
        if self._alive:
            self._alive, self._pid = False, None
            self._tell(False)
