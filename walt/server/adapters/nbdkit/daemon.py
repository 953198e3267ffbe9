"""nbdkit as a supervised child (spec server §1.6)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.adapters.nbdkit.probe import ask_greeting
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.domain.network_services.swap import SwapConfig
from walt.server.runtime.accounts import give_directory
from walt.server.runtime.asking import Place
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.configured import ConfiguredChild
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import Patience

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
class SwapService(ConfiguredChild[SwapConfig]):
    """Run nbdkit; when it ends, so does every swap area.

    `directory` holds its plugin and the areas, `runtime` its pid file; probes ask
    from `place`.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, *, directory: Path, runtime: Path,
        place: Place = contextlib.nullcontext, patience: Patience | None = None,
    ) -> None:
        super().__init__(NAME, reactor, launcher, runtime / "nbdkit.pid", patience=patience)
        self._reactor, self._place = reactor, place
        self._directory = directory

    def _written(self, config: SwapConfig) -> ChildSpec:
        give_directory(self._directory / "areas", USER, GROUP)
        write_if_changed(self._directory / PLUGIN.name, PLUGIN.read_bytes())
        return nbdkit_spec(config, self._directory)

    async def _probe(self) -> None:
        assert self._config is not None
        await ask_greeting(
            self._reactor, str(self._config.server), self._config.port, place=self._place
        )
