"""A real docker daemon for tests, in directories and a network namespace of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher, ProcessResult, ProcessRunner


def why_not() -> str | None:
    """Return why no docker daemon can run here."""
    return None if shutil.which("dockerd") else "needs dockerd (Debian package docker.io)"


class TestDocker:
    """dockerd with its files below `base`; it touches no network of the host."""

    def __init__(self, reactor: Any, base: Path) -> None:
        self.reactor = reactor
        self.base = base / "docker"
        self.base.mkdir()
        self.socket = self.base / "docker.sock"
        self._runner = ProcessRunner(reactor)
        self._child: ChildService | None = None

    async def start(self) -> None:
        """Start it, with mounts that end with it, and wait until it answers."""
        self._child = ChildService(self.reactor, Launcher(), ChildSpec("dockerd", (
            "unshare", "--net", "--mount", "--", "dockerd", "--host", f"unix://{self.socket}",
            "--data-root", str(self.base / "data"), "--exec-root", str(self.base / "run"),
            "--pidfile", str(self.base / "pid"), "--storage-driver", "vfs",
            "--iptables=false", "--ip6tables=false", "--bridge=none",
        )))
        self._child.startService()
        limit = self.reactor.seconds() + 30
        while (await self.docker("version", check=False)).status != 0:
            if self.reactor.seconds() > limit:
                raise AssertionError("the docker daemon does not answer")
            await deferLater(self.reactor, 0.1, lambda: None)

    async def docker(self, *words: str, check: bool = True) -> ProcessResult:
        """Run the docker command on it."""
        return await self._runner.run(
            ["docker", "--host", f"unix://{self.socket}", *words], check=check
        )

    async def stop(self) -> None:
        """End it; its containerd ends with it."""
        if self._child is not None:
            child, self._child = self._child, None
            await child.stopService()
