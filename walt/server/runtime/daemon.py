"""What every supervised daemon has: a child, a watch, and a configuration to follow."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from walt.server.runtime.child import ChildService, end_left_over
from walt.server.runtime.kept import ChildSpec, Health, Kept
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.units import UnitLauncher, UnitService
from walt.server.runtime.watching import Patience, Watch

_C = TypeVar("_C")


def kept(
    reactor: IReactor, launcher: Launcher, spec: ChildSpec, *, pid_file: Path,
    on_line: Callable[[str], None] | None = None,
    explain: Callable[[Sequence[str]], str] | None = None,
) -> Kept:
    """Return what keeps a daemon running: systemd by its unit, or this process as its parent."""
    if isinstance(launcher, UnitLauncher) and launcher.units is not None:
        return UnitService(reactor, launcher.units, spec, on_line=on_line)
    return ChildService(
        reactor, launcher, spec, on_line=on_line, pid_file=pid_file, explain=explain
    )


class Daemon(Service, ABC, Generic[_C]):
    """Run a daemon with the configuration given to `apply`, and watch it.

    Whether it is a child or a unit of systemd is up to `launcher`.

    The first of `apply` and `startService` waits for the other one. A kind of
    daemon says how to `_prepare` its files, how to `_follow` a changed
    configuration, and how to `_probe` whether it answers; it may be told to read
    its files again by `_remind`. `pid_file` records its process.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, spec: ChildSpec, pid_file: Path, *,
        on_line: Callable[[str], None] | None = None,
        explain: Callable[[Sequence[str]], str] | None = None,
        remind: Callable[[], object] | None = None,
        on_answer: Callable[[], None] | None = None, patience: Patience | None = None,
    ) -> None:
        self.setName(spec.name)
        self._pid_file = pid_file
        self._config: _C | None = None
        self.child = kept(
            reactor, launcher, spec, on_line=on_line, pid_file=pid_file, explain=explain
        )
        self.watch = Watch(
            reactor, self.child, self._probe, remind=remind, on_answer=on_answer,
            patience=patience,
        )

    @property
    def health(self) -> Health:
        """Return whether it runs and answers, since when, and how often it was restarted."""
        return self.child.health

    def startService(self) -> None:
        """Start the daemon, or wait for its first configuration."""
        super().startService()
        end_left_over(self._pid_file, signal.SIGKILL)
        if self._config is not None:
            self._launch(self._config)

    def stopService(self) -> Deferred[None]:
        """End the daemon; fires when it is gone."""
        super().stopService()
        return self.child.stopService() if self.child.running else succeed(None)

    def apply(self, config: _C) -> Deferred[None]:
        """Make `config` the wanted one; fires when the daemon has it (or refused it)."""
        old, self._config = self._config, config
        if not self.running or config == old:
            return succeed(None)
        if old is None:
            self._launch(config)
            return succeed(None)
        return self._follow(old, config)

    def _launch(self, config: _C) -> None:
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        self._prepare(config)
        self.child.startService()

    @abstractmethod
    def _prepare(self, config: _C) -> None:
        """Put in place what the daemon needs to start with `config`."""

    @abstractmethod
    def _follow(self, old: _C, config: _C) -> Deferred[None]:
        """Hand a changed configuration over; fires when the daemon has it."""

    @abstractmethod
    async def _probe(self) -> None:
        """Ask the daemon whether it answers; see `watching.Probe`."""
