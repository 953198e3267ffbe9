"""The real in.tftpd with our map, on a tree made by BootTreeStore."""

from __future__ import annotations

import os
import pwd
import re
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.hanging import SHORT, stop_and_come_back
from tests.system.netns import Namespace, join, short_dir, why_not
from walt.server.adapters.tftpd.daemon import TftpdService
from walt.server.adapters.tftpd.loaders import install_loaders
from walt.server.adapters.tftpd.tree import BootTreeStore
from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.boot_tree import boot_tree
from walt.server.domain.network_services.tftp import TftpConfig
from walt.server.runtime.process import ProcessRunner

INTERFACE = IPv4Interface("192.168.77.1/24")
IMAGE = "ab" * 32
NODE = Device(
    "02:00:00:00:00:01", "node-1", "node", "192.168.77.20", model="rpi-4-b",
    image="joe/img:latest",
)


class TftpdTests(TestCase):
    skip = why_not("in.tftpd", "tftp", "ip", "nsenter", "setpriv")
    timeout = patient(60)

    async def setUp(self) -> None:
        self.server, self.node = Namespace(self), Namespace(self)
        join(self.server, "walt-net", self.node, "c0")
        self.server.run("ip", "address", "add", str(INTERFACE), "dev", "walt-net")
        self.node.run("ip", "address", "add", "192.168.77.20/24", "dev", "c0")
        self.node.run("ip", "address", "add", "192.168.77.99/24", "dev", "c0")
        self.dir = short_dir(self)
        self.out = short_dir(self)
        boot = self.dir / "images" / IMAGE / "fs" / "boot" / "rpi-4-b"
        boot.mkdir(parents=True)
        (boot / "start.uboot").write_text("uboot script")
        (boot / "start.ipxe").write_text("ipxe script")
        (boot / "kernel").symlink_to("../../vmlinuz")
        (boot.parent.parent / "vmlinuz").write_bytes(os.urandom(300_000))
        package = self.dir / "ipxe"
        package.mkdir()
        (package / "undionly.kpxe").write_text("loader")
        (package / "snponly.efi").write_text("efi loader")
        install_loaders(self.dir, package)
        (self.dir / "tftp-static" / "bootcode.bin").write_text("firmware")
        (self.dir / "secret").write_text("readable by all, yet not for nodes")
        store = BootTreeStore(reactor, ProcessRunner(reactor), self.dir / "nodes")
        await store.apply(boot_tree(INTERFACE, [NODE], {"joe/img:latest": IMAGE}))
        self.service = TftpdService(
            reactor, self.server.launcher, directory=self.dir / "services" / "tftpd",
            runtime=self.dir / "run", place=self.server.inside, patience=SHORT,
        )
        self.service.startService()
        self.addCleanup(self.service.stopService)
        await self.service.apply(TftpConfig(IPv4Address("192.168.77.1"), self.dir))
        limit = reactor.seconds() + 20  # type: ignore[attr-defined]
        while "192.168.77.1:69 " not in self.server.run("ss", "-Hlun"):
            self.assertLess(reactor.seconds(), limit)  # type: ignore[attr-defined]
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]

    async def get(self, name: str, address: str = "192.168.77.20") -> bytes | None:
        """Fetch a file from an address of the client; None when there is none, or not for it."""
        target = self.out / "got"
        target.unlink(missing_ok=True)
        self.node.run("ip", "route", "replace", "192.168.77.1/32", "dev", "c0", "src", address)
        argv = self.node.command(
            "tftp", "-m", "binary", "192.168.77.1", "-c", "get", name, str(target)
        )
        out, err, status = await getProcessOutputAndValue(argv[0], argv[1:], os.environ)
        # RFC 1350: 1 is "file not found", 2 "access violation"; others are faults.
        if re.search(rb"Error code [12]: ", out + err):
            return None
        self.assertEqual((out, err, status), (b"", b"", 0))
        return target.read_bytes()

    async def test_files_of_the_node(self) -> None:
        """A node gets the files of its image, with or without a slash in front."""
        vmlinuz = self.dir / "images" / IMAGE / "fs" / "vmlinuz"
        self.assertEqual(await self.get("start.uboot"), b"uboot script")
        self.assertEqual(await self.get("/start.uboot"), b"uboot script")
        self.assertEqual(await self.get("kernel"), vmlinuz.read_bytes())

    async def test_legacy_names(self) -> None:
        """Names used by old loaders lead to the present ones."""
        self.assertEqual(await self.get("boot/rpi-4-b.uboot"), b"uboot script")
        self.assertEqual(await self.get("boot/pc-x86-64.ipxe"), b"ipxe script")

    async def test_loaders(self) -> None:
        """The loader and the script of plain iPXE are the same for everybody."""
        self.assertEqual(await self.get("pxe/walt-x86-undionly.kpxe"), b"loader")
        self.assertEqual(await self.get("pxe/walt-x86-64-snponly.efi"), b"efi loader")
        script = await self.get("pxe/walt.ipxe", "192.168.77.99")
        assert script is not None
        self.assertTrue(script.startswith(b"#!ipxe"))

    async def test_probing(self) -> None:
        """A board using a free address finds the firmware of tftp-static."""
        self.assertEqual(await self.get("bootcode.bin", "192.168.77.99"), b"firmware")

    async def test_nothing_else(self) -> None:
        """Missing files, parent directories and other trees are refused."""
        for name in ("0123abcd/start4.elf", "../secret", "x/../../secret", "../../../secret",
                     "pxe/../secret", "undionly/../secret"):
            self.assertIsNone(await self.get(name), name)

    async def test_stopped_process(self) -> None:
        """A daemon that hangs is noticed and replaced by one that sends files."""
        await stop_and_come_back(self.service)
        self.assertEqual(await self.get("start.uboot"), b"uboot script")

    async def test_no_root(self) -> None:
        """No process of it is root, nor could be: its account is the only one there is."""
        await self.get("start.uboot")
        pid = self.service.health.pid
        status = Path(f"/proc/{pid}/status").read_text()
        account = pwd.getpwnam("tftp")
        for name, number in (("Uid", account.pw_uid), ("Gid", account.pw_gid)):
            self.assertIn(f"\n{name}:" + f"\t{number}" * 4 + "\n", status)
        self.assertIn(f"\nCapBnd:\t{1 << 6 | 1 << 18:016x}\n", status)
        self.assertIn("\nNoNewPrivs:\t1\n", status)
        for kind, number in (("uid", account.pw_uid), ("gid", account.pw_gid)):
            self.assertEqual(
                Path(f"/proc/{pid}/{kind}_map").read_text().split(), [str(number)] * 2 + ["1"]
            )

    async def test_stop(self) -> None:
        """After stopService the daemon is gone."""
        await self.get("start.uboot")
        pid = self.service.health.pid
        await self.service.stopService()
        self.assertFalse(Path(f"/proc/{pid}").exists())
