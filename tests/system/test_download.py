"""A board whose default image is on a registry only: downloaded, then the board is a node."""

from __future__ import annotations

import os
import shutil
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from walt.server.adapters.podman.options import Storage
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher

IMAGE = "waltplatform/pc-x86-64-default:latest"
MAC = "52:54:00:00:00:77"

_REGISTRY = """version: 0.1
log:
  level: error
storage:
  filesystem:
    rootdirectory: {root}
http:
  addr: 127.0.0.1:{port}
"""


class DownloadTests(TestCase):
    skip = why_not() or (None if shutil.which("docker-registry") else "needs docker-registry")
    timeout = patient(240)

    async def _registry(self, platform: LivePlatform, port: int) -> None:
        config = platform.base / "registry.yml"
        config.write_text(_REGISTRY.format(root=platform.base / "registry", port=port))
        child = ChildService(platform.reactor, Launcher(), ChildSpec(
            "registry", ("docker-registry", "serve", str(config))
        ))
        child.startService()
        self.addCleanup(child.stopService)

        async def listens() -> Any:
            endpoint = TCP4ClientEndpoint(platform.reactor, "127.0.0.1", port, timeout=2)
            try:
                made = await endpoint.connect(Factory.forProtocol(Protocol))
            except Exception:
                return False
            made.transport.loseConnection()
            return True

        await platform.until(listens, "the registry listens", 20)

    async def test_downloaded_then_registered(self) -> None:
        """It is unknown until the image is there, and the log tells each step."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        port = 21000 + os.getpid() % 5000
        await self._registry(platform, port)
        await platform.import_image()
        podman = Storage.private(platform.state, platform.runtime).podman
        await platform.runner.run(podman(
            "push", "--tls-verify=false", f"docker.io/{IMAGE}", f"127.0.0.1:{port}/{IMAGE}"
        ), timeout=120)
        await platform.runner.run(podman("rmi", "--all", "--force"), timeout=60)
        platform.write_config(
            "registries:\n- label: lab\n  api: docker-registry-v2\n  host: 127.0.0.1\n"
            f"  port: {port}\n  protocol: http\n  auth: none\n"
        )
        await platform.start()
        await platform.event(
            "commit", "", "walt.node.pc-x86-64", "192.168.181.77", MAC, "", "0", "unknown"
        )

        async def registered() -> bool:
            return "node-000077" in await platform.ok("node", "show", "--all", "--names-only")

        await platform.until(registered, "the node is registered", 90)
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        for line in (
            f"new device name=unknown-000077 type=unknown mac={MAC} ip=192.168.181.77",
            "Device unknown-000077 is a walt node of type 'pc-x86-64'.",
            f"Trying to download a default image for 'pc-x86-64' nodes: {IMAGE}...",
            f"Image {IMAGE} was downloaded successfully.",
            "renamed unknown-000077 to node-000077 for clarity",
            "new node (device type previously unknown) name=node-000077 model=pc-x86-64"
            f" mac={MAC} ip=192.168.181.77",
        ):
            self.assertIn(line, events)
        daemon = await platform.ok("log", "show", "--server", "--history", "full")
        self.assertIn("walt-server.daemon.stdout -> ", daemon)
        self.assertEqual(await platform.stop(), 0)
        left = [one for one in platform.left_overs() if "docker-registry" not in one]
        self.assertEqual(left, [])
