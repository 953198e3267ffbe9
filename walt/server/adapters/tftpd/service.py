"""in.tftpd as a supervised child (spec node-protocols §3.1)."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.domain.services.ports import IConfigurable
from walt.server.domain.services.tftp import MAP, TftpConfig
from walt.server.runtime.child import ChildService, ChildSpec, Health, end_left_over
from walt.server.runtime.process import Launcher


def tftpd_spec(config: TftpConfig, directory: Path, user: str = "tftp") -> ChildSpec:
    """Return how in.tftpd is run: it changes root and user itself, for each transfer."""
    return ChildSpec(
        "tftpd",
        (
            "in.tftpd", "--listen", "--foreground", "-v", "-v", "--user", user,
            "--address", f"{config.server}:{config.port}", "--secure",
            "--map-file", str(directory / "map"), str(config.root),
        ),
    )


@implementer(IConfigurable)
class TftpdService(Service):
    """Run in.tftpd with the configuration given to `apply`.

    `directory` holds its map, `runtime` its pid file.
    """

    def __init__(
        self, reactor: Any, launcher: Launcher, *, directory: Path, runtime: Path,
        user: str = "tftp",
    ) -> None:
        self.setName("tftpd")
        self._reactor, self._launcher = reactor, launcher
        self._directory, self._user = directory, user
        self._pid_file = runtime / "tftpd.pid"
        self._config: TftpConfig | None = None
        self.child: ChildService | None = None

    @property
    def health(self) -> Health:
        """Return whether it runs, since when, and how often it was restarted."""
        if self.child is None:
            return Health("tftpd", False, None, 0, None, None)
        return self.child.health

    def startService(self) -> None:
        """Start in.tftpd, or wait for its configuration."""
        super().startService()
        end_left_over(self._pid_file, signal.SIGKILL)
        if self._config is not None:
            self._launch(self._config)

    def stopService(self) -> Deferred[None]:
        """End in.tftpd; fires when it is gone."""
        super().stopService()
        child, self.child = self.child, None
        return child.stopService() if child is not None else succeed(None)

    def apply(self, config: TftpConfig) -> Deferred[None]:
        """Make `config` the wanted one; fires when in.tftpd was started with it."""
        old, self._config = self._config, config
        if not self.running or config == old:
            return succeed(None)
        child, self.child = self.child, None
        gone = child.stopService() if child is not None else succeed(None)
        return gone.addCallback(lambda _: self._launch(config))

    def _launch(self, config: TftpConfig) -> None:
        if not self.running or config != self._config:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        write_if_changed(self._directory / "map", MAP)
        self.child = ChildService(
            self._reactor, self._launcher, tftpd_spec(config, self._directory, self._user),
            pid_file=self._pid_file,
        )
        self.child.startService()
