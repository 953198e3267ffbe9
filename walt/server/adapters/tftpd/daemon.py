"""in.tftpd as a supervised child (spec node-protocols §3.1)."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.adapters.tftpd.probe import ask_file
from walt.server.domain.network_services.dhcp import IPXE_SCRIPT
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.domain.network_services.tftp import MAP, TftpConfig
from walt.server.runtime.asking import Place
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.configured import ConfiguredChild
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import NoAnswer, Patience

LAUNCH = Path(__file__).with_name("launch.py")
FOREVER = "1000000000"  # seconds without requests, after which a child of inetd ends


def tftpd_spec(config: TftpConfig, directory: Path, user: str = "tftp") -> ChildSpec:
    """Return how in.tftpd is run: by an account, it changes its root for each transfer."""
    return ChildSpec(
        "tftpd",
        (
            sys.executable, "-I", str(LAUNCH), str(config.server), str(config.port), user,
            "in.tftpd", "--timeout", FOREVER, "-v", "-v", "--user", user, "--secure",
            "--map-file", str(directory / "map"), str(config.root),
        ),
    )


@implementer(IConfigurable)
class TftpdService(ConfiguredChild[TftpConfig]):
    """Run in.tftpd.

    `directory` holds its map, `runtime` its pid file; probes ask from `place`.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, *, directory: Path, runtime: Path,
        user: str = "tftp", place: Place = contextlib.nullcontext,
        patience: Patience | None = None,
    ) -> None:
        super().__init__("tftpd", reactor, launcher, runtime / "tftpd.pid", patience=patience)
        self._reactor, self._place = reactor, place
        self._directory, self._user = directory, user

    def _written(self, config: TftpConfig) -> ChildSpec:
        self._directory.mkdir(parents=True, exist_ok=True)
        write_if_changed(self._directory / "map", MAP)
        return tftpd_spec(config, self._directory, self._user)

    async def _probe(self) -> None:
        assert self._config is not None
        config = self._config
        error = await ask_file(
            self._reactor, str(config.server), config.port, IPXE_SCRIPT, place=self._place
        )
        # A file that somebody removed is no fault of the daemon.
        if error and (config.root / IPXE_SCRIPT).exists():
            raise NoAnswer(f"does not send {IPXE_SCRIPT}: {error}")
