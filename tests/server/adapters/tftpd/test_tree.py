from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.system.netns import short_dir
from walt.common.mounts import mounted_below
from walt.server.adapters.tftpd.loaders import install_loaders
from walt.server.adapters.tftpd.tree import MORE, STATUS, BootTreeStore
from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.boot_tree import BootTree, boot_tree
from walt.server.runtime.process import ProcessRunner

INTERFACE = IPv4Interface("192.168.1.1/28")
IMAGE = "ab" * 32
MAC = "02:00:00:00:00:05"
NODE = Device(MAC, "node-5", "node", "192.168.1.5", model="pc-x86-64", image="joe/img:latest")


class BootTreeStoreTests(TestCase):
    def setUp(self) -> None:
        self.root = short_dir(self) / "nodes"
        self.runner = ProcessRunner(reactor)
        self.stores: list[BootTreeStore] = []
        self.store = self.new_store()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.settled()))

    def new_store(self) -> BootTreeStore:
        self.stores.append(BootTreeStore(reactor, self.runner, self.root))
        return self.stores[-1]

    def wanted(self, *nodes: Device) -> BootTree:
        return boot_tree(INTERFACE, nodes, {"joe/img:latest": IMAGE})

    def links(self) -> dict[str, str]:
        """Return every link of the tree on disk."""
        found = {}
        for directory in (self.root, *(p for p in self.root.iterdir()
                                       if p.is_dir() and not p.is_symlink()
                                       and not p.name.startswith(".doomed-"))):
            for path in directory.iterdir():
                if path.is_symlink():
                    found[str(path.relative_to(self.root))] = os.readlink(path)
        return found

    async def gone(self, path: Path) -> None:
        """Check that nothing is left once deletions have ended."""
        await self.settled()
        self.assertFalse(path.exists())
        self.assertEqual(list(self.root.glob(".doomed-*")), [])

    async def settled(self) -> None:
        """Wait for every deletion."""
        for store in self.stores:
            await store.settled()

    async def test_mounted_data(self) -> None:
        """What is mounted in the directory of a node goes with it, whoever still uses it."""
        await self.store.apply(self.wanted(NODE))
        point = self.root / MAC / "persist_dirs" / "joe"
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(point)], check=True)
        with (point / "used").open("w"):
            await self.store.apply(self.wanted())
            await self.gone(self.root / MAC)
        self.assertEqual(mounted_below(self.root), [])

    async def test_from_nothing(self) -> None:
        """The tree is made, and its state saved."""
        tree = self.wanted(NODE)
        await self.store.apply(tree)
        self.assertEqual(self.links(), dict(tree.links))
        self.assertTrue((self.root / MAC / "persist_dirs" / "joe").is_dir())
        status = json.loads((self.root / STATUS).read_text())
        self.assertEqual(set(status["dirs"]), tree.dirs)

    async def test_difference_only(self) -> None:
        """A change touches the links concerned; the others keep their inode."""
        await self.store.apply(self.wanted(NODE))
        before = os.lstat(self.root / MAC / "fs").st_ino
        tree = self.wanted(NODE, Device("02:00:00:00:00:06", "n6", "node", "192.168.1.6"))
        await self.store.apply(tree)
        self.assertEqual(self.links(), dict(tree.links))
        self.assertEqual(os.lstat(self.root / MAC / "fs").st_ino, before)

    async def test_node_that_leaves_loses_everything(self) -> None:
        """Its directory goes with persistent data and disks."""
        await self.store.apply(self.wanted(NODE))
        (self.root / MAC / "disks").mkdir()
        (self.root / MAC / "persist_dirs" / "joe" / "file").write_text("data")
        await self.store.apply(self.wanted())
        self.assertFalse((self.root / MAC).exists())
        self.assertEqual(os.readlink(self.root / "192.168.1.5"), "probing")
        await self.gone(self.root / MAC)

    async def test_restart_takes_the_tree_over(self) -> None:
        """A new server changes nothing in a tree that is right."""
        await self.store.apply(self.wanted(NODE))
        inodes = {name: os.lstat(self.root / name).st_ino for name in self.links()}
        await self.new_store().apply(self.wanted(NODE))
        self.assertEqual({name: os.lstat(self.root / name).st_ino for name in inodes}, inodes)

    async def test_directories_of_persistent_data_are_there_again(self) -> None:
        """A new server makes those that are missing."""
        for broken in ("persist_dirs", "persist_dirs/joe"):
            for link in (False, True):
                await self.store.apply(self.wanted(NODE))
                place = self.root / MAC / broken
                place.rename(place.with_name("elsewhere"))
                if link:
                    place.symlink_to("elsewhere")
                self.store = self.new_store()
                await self.store.apply(self.wanted(NODE))
                # Data of an owner may be elsewhere: whoever made that link knows why.
                self.assertEqual(place.is_symlink(), link and broken.endswith("joe"))
                self.assertTrue((self.root / MAC / "persist_dirs" / "joe").is_dir())
                if place.is_symlink():
                    place.unlink()
                shutil.rmtree(place.with_name("elsewhere"), ignore_errors=True)

    async def test_node_forgotten_while_stopped(self) -> None:
        """What the last server remembered and nobody wants any more goes."""
        await self.store.apply(self.wanted(NODE))
        await self.new_store().apply(self.wanted())
        self.assertFalse((self.root / MAC).exists())
        await self.gone(self.root / MAC)

    async def test_inconsistent_tree_is_repaired(self) -> None:
        """Wrong, missing and foreign entries are repaired; data is kept."""
        await self.store.apply(self.wanted(NODE))
        data = self.root / MAC / "persist_dirs" / "joe" / "file"
        data.write_text("data")
        (self.root / MAC / "disks").mkdir()
        (self.root / MAC / "garbage").mkdir()
        (self.root / MAC / "fs").unlink()
        (self.root / MAC / "tftp").unlink()
        os.symlink("/etc", self.root / MAC / "tftp")
        (self.root / "node-5").unlink()
        (self.root / "node-5").mkdir()
        (self.root / "status.pickle").write_bytes(b"cposix\nsystem\n")
        os.symlink("nowhere", self.root / "stray")
        stranger = self.root / "02:00:00:00:00:99"
        (stranger / "persist_dirs").mkdir(parents=True)
        os.symlink("x", stranger / "fs")
        await self.new_store().apply(self.wanted(NODE))
        self.assertEqual(self.links(), dict(self.wanted(NODE).links))
        self.assertEqual(data.read_text(), "data")
        self.assertTrue((self.root / MAC / "disks").is_dir())
        self.assertTrue((stranger / "persist_dirs").is_dir())
        await self.gone(self.root / MAC / "garbage")
        self.assertFalse((self.root / "status.pickle").exists())

    async def test_contradiction_at_run_time(self) -> None:
        """When the disk is not as remembered the tree is read again and repaired."""
        await self.store.apply(self.wanted(NODE))
        (self.root / "node-5").unlink()
        (self.root / "node-5").mkdir()
        renamed = Device(MAC, "other", "node", "192.168.1.5", model="pc-x86-64",
                         image="joe/img:latest")
        await self.store.apply(self.wanted(renamed))
        self.assertEqual(self.links(), dict(self.wanted(renamed).links))

    async def test_legacy_persist(self) -> None:
        """The directories of older layouts become the owner's."""
        old = self.root / MAC / "persist"
        old.mkdir(parents=True)
        (old / "file").write_text("data")
        await self.store.apply(self.wanted(NODE))
        self.assertEqual(
            (self.root / MAC / "persist_dirs" / "joe" / "file").read_text(), "data"
        )
        self.assertEqual(os.readlink(self.root / MAC / "persist"), "persist_dirs/joe")

    async def test_concurrent_changes(self) -> None:
        """Changes made while another one is under way end with the last one."""
        waits = [
            self.store.apply(self.wanted(NODE) if n % 2 else self.wanted()) for n in range(8)
        ]
        for one in waits:
            await one
        self.assertEqual(self.links(), dict(self.wanted(NODE).links))

    async def test_stays_responsive(self) -> None:
        """4,000 links are made without a reactor turn above 100 ms of CPU."""
        worst, last, running = 0.0, time.thread_time(), True

        def beat() -> None:
            nonlocal worst, last
            now = time.thread_time()
            worst, last = max(worst, now - last), now
            if running:
                reactor.callLater(0, beat)

        tree = boot_tree(IPv4Interface("10.0.0.1/20"), [NODE], {})
        gc.disable()  # a collection goes through the heap of the whole test run
        self.addCleanup(gc.enable)
        last = time.thread_time()
        beat()
        await self.store.apply(tree)
        running = False
        await deferLater(reactor, 0.01, lambda: None)
        self.assertEqual(len(self.links()), len(tree.links))
        self.assertLess(worst, 0.1)

    async def test_what_is_remembered(self) -> None:
        """Directories are, those that are made beside the others, which are not written again;
        other targets of links cost no file.
        """
        await self.store.apply(self.wanted(NODE))
        before = os.lstat(self.root / STATUS).st_ino
        other = replace(NODE, image="joe/other:latest")
        await self.store.apply(boot_tree(INTERFACE, [other], {"joe/other:latest": "cd" * 32}))
        self.assertEqual(os.readlink(self.root / MAC / "fs"), f"../../images/{'cd' * 32}/fs")
        self.assertEqual(os.lstat(self.root / STATUS).st_ino, before)
        await self.store.apply(self.wanted(NODE, replace(
            NODE, mac="02:00:00:00:00:06", name="node-6", ip="192.168.1.6"
        )))
        self.assertEqual(os.lstat(self.root / STATUS).st_ino, before)
        self.assertEqual((self.root / MORE).read_text(), "02:00:00:00:00:06\n")
        # The next server knows them all: what is not wanted any more goes.
        await self.new_store().apply(self.wanted(NODE))
        self.assertFalse((self.root / "02:00:00:00:00:06").exists())
        self.assertFalse((self.root / MORE).exists())
        self.assertEqual(
            set(json.loads((self.root / STATUS).read_text())["dirs"]), {MAC, "probing"}
        )
        (self.root / STATUS).unlink()
        await self.store.apply(self.wanted(NODE, replace(NODE, name="other")))
        self.assertTrue((self.root / STATUS).exists())

    async def test_no_space(self) -> None:
        """A disk that refuses makes apply fail; the next one succeeds."""
        self.root.parent.mkdir(exist_ok=True)
        self.root.write_text("not a directory")
        await self.assertFailure(self.store.apply(self.wanted(NODE)), OSError)
        self.root.unlink()
        await self.store.apply(self.wanted(NODE))
        self.assertEqual(self.links(), dict(self.wanted(NODE).links))


class LoadersTests(TestCase):
    def test_installed_and_refreshed(self) -> None:
        """Loader and script are copied, refreshed, and the obsolete directory goes."""
        state = short_dir(self)
        package = state / "ipxe"
        package.mkdir()
        source = package / "undionly.kpxe"
        source.write_bytes(b"one")
        (package / "snponly.efi").write_bytes(b"efi")
        (state / "tftp-standby").mkdir()
        install_loaders(state, package)
        source.write_bytes(b"two")
        install_loaders(state, package)
        self.assertEqual((state / "pxe" / "walt-x86-undionly.kpxe").read_bytes(), b"two")
        self.assertEqual((state / "pxe" / "walt-x86-64-snponly.efi").read_bytes(), b"efi")
        self.assertIn(b"walt.node.pc-x86-64", (state / "pxe" / "walt.ipxe").read_bytes())
        self.assertTrue((state / "tftp-static").is_dir())
        self.assertFalse((state / "tftp-standby").exists())

    def test_without_ipxe(self) -> None:
        """A missing iPXE is no reason not to start."""
        state = short_dir(self)
        install_loaders(state, state / "absent")
        self.assertTrue((state / "pxe" / "walt.ipxe").exists())


