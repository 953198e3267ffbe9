"""Real registries for tests: docker-registry children, plain, with accounts, with TLS."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher

_CONFIG = """version: 0.1
log:
  level: error
storage:
  filesystem:
    rootdirectory: {root}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
"""
# walter, secret: bcrypt, the only form that the registry takes.
ACCOUNT = "walter:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


def why_not() -> str | None:
    """Return why no registry can run here."""
    return None if shutil.which("docker-registry") else "needs docker-registry"


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class TestRegistry:
    """One docker-registry on a port of the loopback address, in its own directory."""

    def __init__(
        self, reactor: Any, base: Path, *, accounts: bool = False,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.reactor = reactor
        self.port = free_port()
        self.root = base / f"registry-{self.port}"
        self.root.mkdir()
        text = _CONFIG.format(root=self.root / "data", port=self.port)
        if accounts:
            (self.root / "accounts").write_text(ACCOUNT)
            text += f"auth:\n  htpasswd:\n    realm: test\n    path: {self.root / 'accounts'}\n"
        if certificate is not None:
            lines = f"  tls:\n    certificate: {certificate[0]}\n    key: {certificate[1]}\n"
            text = text.replace(f"{self.port}\n", f"{self.port}\n{lines}", 1)
        config = self.root / "config.yml"
        config.write_text(text)
        self.child = ChildService(reactor, Launcher(), ChildSpec(
            "registry", ("docker-registry", "serve", str(config))
        ))

    @property
    def host(self) -> str:
        """Host and port, as references name it."""
        return f"127.0.0.1:{self.port}"

    def settings(self, label: str, **more: Any) -> str:
        """Return an entry of `registries` in server.conf."""
        values = {
            "label": label, "api": "docker-registry-v2", "host": "127.0.0.1", "port": self.port,
            "protocol": "http", "auth": "none", **more,
        }
        lines = [f"{name}: {value}" for name, value in values.items()]
        return "- " + "\n  ".join(lines) + "\n"

    async def start(self) -> None:
        """Start it and wait until it listens."""
        self.child.startService()
        limit = self.reactor.seconds() + 20
        while not await self._listens():
            if self.reactor.seconds() > limit:
                raise AssertionError("the registry does not listen")
            await deferLater(self.reactor, 0.1, lambda: None)

    async def _listens(self) -> bool:
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port, timeout=2)
        try:
            made = await endpoint.connect(Factory.forProtocol(Protocol))
        except Exception:
            return False
        made.transport.loseConnection()
        return True

    def stop(self) -> Any:
        """End it."""
        return self.child.stopService()
