"""in.tftpd as a supervised child (spec node-protocols §3.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.domain.services.ports import IConfigurable
from walt.server.domain.services.tftp import MAP, TftpConfig
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.configured import ConfiguredChild
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
class TftpdService(ConfiguredChild[TftpConfig]):
    """Run in.tftpd.

    `directory` holds its map, `runtime` its pid file.
    """

    def __init__(
        self, reactor: Any, launcher: Launcher, *, directory: Path, runtime: Path,
        user: str = "tftp",
    ) -> None:
        super().__init__("tftpd", reactor, launcher, self._written, runtime / "tftpd.pid")
        self._directory, self._user = directory, user

    def _written(self, config: TftpConfig) -> ChildSpec:
        self._directory.mkdir(parents=True, exist_ok=True)
        write_if_changed(self._directory / "map", MAP)
        return tftpd_spec(config, self._directory, self._user)
