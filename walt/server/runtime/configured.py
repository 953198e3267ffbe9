"""A daemon that is started again whenever its configuration changes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred

from walt.server.runtime.child import ChildSpec
from walt.server.runtime.daemon import Daemon
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import Patience

_C = TypeVar("_C")


class ConfiguredChild(Daemon[_C]):
    """Run a daemon whose command line depends on the configuration given to `apply`.

    `_written` writes the files of a configuration and returns how the daemon is
    run with it; `pid_file` records its process.
    """

    def __init__(
        self, name: str, reactor: IReactor, launcher: Launcher, pid_file: Path, *,
        patience: Patience | None = None, on_line: Callable[[str], None] | None = None,
    ) -> None:
        # Nothing is run before there is a configuration.
        super().__init__(
            reactor, launcher, ChildSpec(name, ()), pid_file, patience=patience, on_line=on_line
        )

    @abstractmethod
    def _written(self, config: _C) -> ChildSpec:
        """Write the files of a configuration; return how the daemon is run with it."""

    def _prepare(self, config: _C) -> None:
        self.child.spec = self._written(config)

    def _follow(self, old: _C, config: _C) -> Deferred[None]:
        self._prepare(config)
        return self.child.restart()
