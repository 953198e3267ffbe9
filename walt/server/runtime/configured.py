"""A daemon that is started again whenever its configuration changes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from walt.server.runtime.child import ChildService, ChildSpec, Health, end_left_over
from walt.server.runtime.process import Launcher

_C = TypeVar("_C")


class ConfiguredChild(Service, Generic[_C]):
    """Run a daemon with the configuration given to `apply`.

    `prepare` writes the files of a configuration and returns how the daemon is
    run with it; `pid_file` records its process.
    """

    def __init__(
        self, name: str, reactor: Any, launcher: Launcher,
        prepare: Callable[[_C], ChildSpec], pid_file: Path,
    ) -> None:
        self.setName(name)
        self._reactor, self._launcher = reactor, launcher
        self._prepare = prepare
        self._pid_file = pid_file
        self._config: _C | None = None
        self.child: ChildService | None = None

    @property
    def health(self) -> Health:
        """Return whether it runs, since when, and how often it was restarted."""
        if self.child is None:
            return Health(str(self.name), False, None, 0, None, None)
        return self.child.health

    def startService(self) -> None:
        """Start the daemon, or wait for its configuration."""
        super().startService()
        end_left_over(self._pid_file, signal.SIGKILL)
        if self._config is not None:
            self._launch(self._config)

    def stopService(self) -> Deferred[None]:
        """End the daemon; fires when it is gone."""
        super().stopService()
        return self._end()

    def apply(self, config: _C) -> Deferred[None]:
        """Make `config` the wanted one; fires when the daemon was started with it."""
        old, self._config = self._config, config
        if not self.running or config == old:
            return succeed(None)
        return self._end().addCallback(lambda _: self._launch(config))

    def _end(self) -> Deferred[None]:
        child, self.child = self.child, None
        return child.stopService() if child is not None else succeed(None)

    def _launch(self, config: _C) -> None:
        if not self.running or config != self._config:
            return
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.child = ChildService(
            self._reactor, self._launcher, self._prepare(config), pid_file=self._pid_file
        )
        self.child.startService()
