"""A QEMU node boots the small image over the network and offers its services."""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.system.platform import (
    NODE_IP,
    NODE_MAC,
    NODE_NAME,
    SERVER_IP,
    Platform,
    missing_programs,
)
from walt.server.adapters.nfs.ganesha import GaneshaExporter
from walt.server.adapters.podman.mounter import OverlayMounter
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.ssh import keys as ssh_keys
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.domain.images.facts import Facts
from walt.server.runtime.workers import WorkerPool

CACHE = Path(os.environ.get("WALT_TEST_CACHE", "/var/cache/walt"))
VARIANT = os.environ.get("WALT_TEST_VARIANT", "small")


class NodeBootTests(TestCase):
    skip = missing_programs()
    timeout = 300

    async def _platform(self) -> Platform:
        from twisted.internet import reactor

        platform = Platform(reactor)
        self.addCleanup(self._close, platform)
        await platform.set_up_network()
        return platform

    async def _close(self, platform: Platform) -> None:
        await platform.close()

    async def _image(self, platform: Platform) -> tuple[OverlayMounter, Path, str]:
        storage = Storage.private(platform.state, platform.runtime)
        await platform.runner.run(
            [os.sys.executable, "-m", "walt.server.tools.image_recipe", "--variant", VARIANT,
             "--state-dir", str(platform.state), "--runtime-dir", str(platform.runtime),
             "--cache-dir", str(CACHE)],
            network="host", timeout=240, env={"PYTHONPATH": os.pathsep.join(os.sys.path)},
        )
        keys = platform.state / "keys"
        await ssh_keys.ensure_host_keys(platform.runner, keys)
        key = await ssh_keys.ensure_server_key(platform.runner, platform.base / "home")
        store = PodmanStore(platform.runner, storage, platform.base / "images.metadata")
        (image,) = await store.scan()
        self.assertEqual(image.fullname, "waltplatform/pc-x86-64-default:latest")
        pool = WorkerPool(platform.reactor, platform.launcher, network="host")
        self.addCleanup(pool.stop)
        mounter = OverlayMounter(
            pool, store, storage, images=platform.state / "images", keys=keys,
            facts=Facts(SERVER_IP, "52:54:00:00:00:01", key, grace=60),
        )
        self.addCleanup(mounter.unmount, image.image_id)
        return mounter, await mounter.mount(image), image.image_id

    async def test_boot(self) -> None:
        """The node notifies that it is booted, answers PING, and ssh runs commands."""
        platform = await self._platform()
        _, tree, image_id = await self._image(platform)
        exporter = GaneshaExporter(
            platform.reactor, platform.launcher, directory=platform.state / "ganesha",
            runtime=platform.runtime / "ganesha", address=SERVER_IP,
        )
        exporter.startService()
        self.addCleanup(exporter.stopService)
        persist = platform.state / "nodes" / NODE_MAC / "persist_dirs" / "waltplatform"
        await exporter.apply(ExportPlan(
            IPv4Network("192.168.183.0/24"), (ImageExport(image_id, tree),),
            (NodeExport(NODE_MAC, NODE_IP, NODE_NAME, image_id, persist),),
        ))
        platform.start_dhcpd()
        platform.serve_notifications()
        platform.serve_boot_files(tree / "boot" / "pc-x86-64")
        booted = platform.booted()
        platform.start_node()
        booted.addTimeout(float(os.environ.get("WALT_TEST_PATIENCE", "120")), platform.reactor)
        try:
            await booted
        finally:
            for when, event in platform.timeline:
                print(f"{when:6.2f} {event}")
        self.assertEqual(await platform.request("MODE single\nPING\n"), b"OK\n")
        platform.mark("ping")
        known_hosts = platform.base / "known_hosts"
        ssh_keys.write_known_hosts(platform.state / "keys", known_hosts)
        ssh = ssh_keys.node_ssh_command(
            NODE_IP, platform.base / "home" / ".ssh" / "id_rsa", known_hosts
        )
        result = await platform.runner.run([*ssh, ". /bin/walt-env; echo $walt_boot_mode; mount"])
        platform.mark("ssh")
        print(result.stdout.decode(), platform.timeline[-2:], platform.log_lines)
        self.assertTrue(result.stdout.startswith(b"network\n"))
