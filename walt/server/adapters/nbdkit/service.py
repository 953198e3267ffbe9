"""nbdkit as a supervised child (spec server §1.6)."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.domain.services.ports import IConfigurable
from walt.server.domain.services.swap import SwapConfig
from walt.server.runtime.child import ChildService, ChildSpec, Health, end_left_over
from walt.server.runtime.process import Launcher

NAME = "nbdkit"
USER, GROUP = "nobody", "nogroup"
PLUGIN = Path(__file__).with_name("areas.py")


def nbdkit_spec(config: SwapConfig, directory: Path) -> ChildSpec:
    """Return how nbdkit is run: in the foreground, without rights, IPv4 only."""
    return ChildSpec(
        NAME,
        (
            "nbdkit", "--foreground", "--ipaddr", str(config.server), "--port", str(config.port),
            "--no-sr", "python", str(directory / PLUGIN.name),
            f"directory={directory / 'areas'}", f"reserve={config.reserve}",
        ),
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        credentials=(
            "--reuid", USER, "--regid", GROUP, "--clear-groups", "--inh-caps", "-all",
            "--no-new-privs",
        ),
    )


@implementer(IConfigurable)
class SwapService(Service):
    """Run nbdkit with the configuration given to `apply`.

    `directory` holds its plugin and the areas, `runtime` its pid file.
    """

    def __init__(
        self, reactor: Any, launcher: Launcher, *, directory: Path, runtime: Path
    ) -> None:
        self.setName(NAME)
        self._reactor, self._launcher = reactor, launcher
        self._directory = directory
        self._pid_file = runtime / "nbdkit.pid"
        self._config: SwapConfig | None = None
        self.child: ChildService | None = None

    @property
    def health(self) -> Health:
        """Return whether it runs, since when, and how often it was restarted."""
        if self.child is None:
            return Health(NAME, False, None, 0, None, None)
        return self.child.health

    def startService(self) -> None:
        """Start nbdkit, or wait for its configuration."""
        super().startService()
        end_left_over(self._pid_file, signal.SIGKILL)
        if self._config is not None:
            self._launch(self._config)

    def stopService(self) -> Deferred[None]:
        """End nbdkit, and with it every swap area; fires when it is gone."""
        super().stopService()
        child, self.child = self.child, None
        return child.stopService() if child is not None else succeed(None)

    def apply(self, config: SwapConfig) -> Deferred[None]:
        """Make `config` the wanted one; fires when nbdkit was started with it."""
        old, self._config = self._config, config
        if not self.running or config == old:
            return succeed(None)
        child, self.child = self.child, None
        gone = child.stopService() if child is not None else succeed(None)
        return gone.addCallback(lambda _: self._launch(config))

    def _launch(self, config: SwapConfig) -> None:
        if not self.running or config != self._config:
            return
        areas = self._directory / "areas"
        areas.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.chown(areas, USER, GROUP)
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        write_if_changed(self._directory / PLUGIN.name, PLUGIN.read_bytes())
        self.child = ChildService(
            self._reactor, self._launcher, nbdkit_spec(config, self._directory),
            pid_file=self._pid_file,
        )
        self.child.startService()
