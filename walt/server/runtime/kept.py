"""What keeps a daemon running, whoever its parent is, and what is known of it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from walt.server.runtime.process import Network

_log = Logger()

HEALTHY_AFTER = 10.0  # seconds of life that reset the back-off
LONGEST_PAUSE = 60.0
LONGEST_REASON = 300  # characters
LOGGED = 200  # lines of a daemon that are logged in MINUTE: its peers cause them
MINUTE = 60.0  # seconds


@dataclass(frozen=True)
class ChildSpec:
    """How one daemon is run: a comparable value.

    `stop_signals` are tried in order, each with the seconds to wait before the
    next one; `credentials` are options of setpriv (user, capabilities);
    `on_line` gets each line of its output (default: logged).
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    network: Network = "walt"
    death_signal: str = "KILL"
    credentials: tuple[str, ...] = ()
    stop_signals: tuple[tuple[str, float], ...] = (("TERM", 5.0), ("KILL", 5.0))


class Health(NamedTuple):
    """What is known of a child now; times are epoch seconds.

    `state` is `running`, `not answering` (its process lives, but see `Watch`),
    `restarting in N s` or `stopped`; `trouble` is the last one, however long ago.
    """

    name: str
    running: bool
    pid: int | None
    restarts: int
    since: float | None
    last_status: int | None
    state: str = "stopped"
    trouble: str | None = None
    trouble_time: float | None = None


class Kept(Service):
    """Keep one daemon running: what processes of our own and units of systemd have in common.

    `clock` gives callLater and seconds; `on_line` gets each line that the daemon writes
    (default: logged). A kind says how the daemon is started (`_spawn`) and ended.
    """

    def __init__(
        self, clock: IReactorTime, spec: ChildSpec, *,
        on_line: Callable[[str], None] | None = None,
        on_restart: Callable[[int], None] | None = None,
    ) -> None:
        self.setName(spec.name)
        self.spec = spec
        self._clock = clock
        self._on_line = on_line or self.log_line
        self._on_restart = on_restart
        self._fails = 0
        self._restarts = 0
        self._born = 0.0
        self._pause: IDelayedCall | None = None
        self._last_status: int | None = None
        self._answering = True
        self._trouble: Callable[[], str] | None = None
        self._trouble_time: float | None = None
        self._observers: list[Callable[[bool], None]] = []
        self._counted_since, self._lines = 0.0, 0

    def observe(self, observer: Callable[[bool], None]) -> None:
        """Call `observer` at each start (True) and each end (False) of the daemon's process."""
        self._observers.append(observer)

    def _tell(self, alive: bool) -> None:
        for observer in self._observers:
            observer(alive)

    def log_line(self, line: str) -> None:
        """Log a line of the daemon, unless there were too many: its peers cause them."""
        now = self._clock.seconds()
        if now - self._counted_since >= MINUTE:
            if self._lines > LOGGED:
                _log.warn(
                    "{child}: {count} more lines were not logged", child=self.spec.name,
                    count=self._lines - LOGGED,
                )
            self._counted_since, self._lines = now, 0
        self._lines += 1
        if self._lines <= LOGGED:
            _log.info("{child}: {line}", child=self.spec.name, line=line)

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether there is a process of it, as far as is known."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The process id while the daemon runs."""

    @property
    def health(self) -> Health:
        """Return whether it runs, since when, and how often it had to be restarted."""
        return Health(
            self.spec.name, self.alive, self.pid, self._restarts,
            self._born if self.alive else None, self._last_status, self._state(),
            self._trouble()[:LONGEST_REASON] if self._trouble is not None else None,
            self._trouble_time,
        )

    def _state(self) -> str:
        if self.alive:
            return "running" if self._answering else "not answering"
        if self._pause is None or not self._pause.active():
            return "stopped"
        wait = self._pause.getTime() - self._clock.seconds()
        return f"restarting in {max(0, math.ceil(wait))} s"

    @property
    def answering(self) -> bool:
        """Tell whether it answers, as far as somebody asks it (see `Watch`)."""
        return self._answering

    def answers(self) -> None:
        """Note that it answered."""
        self._answering = True

    def does_not_answer(self, reason: str) -> None:
        """Note that its process lives but does not answer as it should, and what it does."""
        self._answering = False
        self._note(lambda: reason)

    def _note(self, trouble: Callable[[], str]) -> None:
        self._trouble, self._trouble_time = trouble, self._clock.seconds()

    @abstractmethod
    def _spawn(self) -> None:
        """Start the daemon."""

    def _back_off(self, status: int) -> None:
        """Start it again after a while: it ended by itself."""
        lived = self._clock.seconds() - self._born
        self._fails = 1 if lived >= HEALTHY_AFTER else self._fails + 1
        pause = min(LONGEST_PAUSE, 2.0 ** (self._fails - 1))
        _log.error(
            "{child} ended unexpectedly (status {status}), restarting it in {pause} s",
            child=self.spec.name, status=status, pause=pause,
        )
        self._pause = self._clock.callLater(pause, self._spawn)
        if self._on_restart is not None:
            self._on_restart(status)

    def _wait_no_more(self) -> None:
        if self._pause is not None and self._pause.active():
            self._pause.cancel()

    @abstractmethod
    def reload(self) -> bool:
        """Make it read its files again; False when it does not run: it will when it starts."""

    @abstractmethod
    def restart(self) -> Deferred[None]:
        """End the daemon and start it again; fires when started."""

    def stopService(self) -> Deferred[None]:
        """End the daemon; fires when it is gone."""
        super().stopService()
        self._wait_no_more()
        return self._stop()

    @abstractmethod
    def _stop(self) -> Deferred[None]:
        """End the daemon, which is not started again; fires when it is gone."""


def last_words(lines: Sequence[str]) -> str:
    """Return the end of what a daemon wrote, as one line."""
    return " / ".join([*lines][-2:])
