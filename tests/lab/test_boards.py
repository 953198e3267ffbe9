"""Boards with other firmware than a BIOS: UEFI, and U-Boot on an ARM processor."""

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.lab.box import NET, SERVER, Box
from tests.lab.installed import CACHE, build_node_image, installed, why_not
from tests.lab.machine import OVMF, UBOOT, UBootBoard, UefiBoard
from tests.lab.test_install import STATE, booted, unknown_devices
from tests.lab.test_networks import DENIED
from tests.patience import patient
from walt.common.qemu import ARM
from walt.server.tools.image_recipe import archive_path, build_archive
from walt.server.tools.recipe import Recipe

# What the loader on the card of a board does (spec node-protocols §4.6).
LOADER = (
    "setenv bootp_vci walt.node.rpi-4-b; setenv autoload no; while true; do dhcp;"
    " if tftpboot ${scriptaddr} start.uboot; then source ${scriptaddr}; fi; sleep 2; done\n"
)
PROMPT = "=> "


def _archive(variant: str) -> Path:
    """Return the archive of a node image, made if it is missing; blocking."""
    recipe = Recipe.load(variant)
    archive = archive_path(CACHE, recipe)
    if not archive.exists():
        build_archive(recipe, archive, lambda text: None)
    return archive


class UefiTests(TestCase):
    skip = why_not() or (None if OVMF.exists() else "not installed: ovmf")
    timeout = patient(900)

    async def test_whole_boot(self) -> None:
        """Its firmware is led to iPXE by TFTP, that to the node's script; it boots and reboots."""
        from twisted.internet import reactor

        box = await installed(reactor)
        self.addCleanup(box.close)
        await box.start()
        await box.until_active()
        board = box.attach(UefiBoard)
        board.boot()
        node = await booted(box, board.mac)
        self.assertIn("UEFI", board.console())
        seen = await box.ok(
            "node", "run", node, "--", "ls /sys/firmware/efi; cat /proc/mounts /proc/cmdline"
        )
        self.assertIn("runtime", seen)  # of /sys/firmware/efi: the kernel was started by UEFI
        self.assertRegex(seen, rf"(?m)^{SERVER}:\S* \S+ nfs4 ro,.*vers=4\.1")
        self.assertIn(" walt.node.model=pc-x86-64 ", seen)
        await reboots(box, node)
        self.assertEqual(await box.run(DENIED), "")


class UBootTests(TestCase):
    skip = why_not() or (
        None if UBOOT.exists() and shutil.which(ARM.program)
        else "not installed: u-boot-qemu, qemu-system-arm"
    )
    timeout = patient(1200)

    async def test_whole_boot(self) -> None:
        """By its own order it is recorded as a device; with the class of a model, it boots."""
        from twisted.internet import reactor

        box = await installed(reactor)
        self.addCleanup(box.close)
        archive = await deferToThread(_archive, "rpi-4-b")
        await box.start(archive)
        await box.until_active()
        await build_node_image(box, archive, "rpi-4-b")
        board = box.attach(UBootBoard)
        board.boot()

        async def asked() -> bool:
            return "Filename 'boot.scr.uimg'" in board.console()

        await box.until(asked, "U-Boot asks for its script", patient(100))

        (row,) = await box.until(
            lambda: unknown_devices(box, board.mac), "it is recorded", patient(60)
        )
        self.assertTrue(row["ip"].startswith(f"{NET}."), row)

        async def prompts() -> bool:
            return board.console().endswith(PROMPT)

        await box.until(prompts, "U-Boot has tried everything", patient(150))
        board.type(LOADER)
        node = await booted(box, board.mac)
        events = await box.ok("log", "show", "--platform", "--history", "full")
        self.assertIn(
            f"new node (device type previously unknown) name={node} model=rpi-4-b mac={board.mac}",
            events,
        )
        self.assertIn("Filename 'start.uboot'", board.console())
        seen = await box.ok(
            "node", "run", node, "--", "uname -m; cat /proc/mounts; echo kept > /persist/file"
        )
        self.assertTrue(seen.startswith("aarch64\n"), seen)
        self.assertRegex(seen, rf"(?m)^{SERVER}:{STATE}/\S* \S+ nfs4 ro,.*vers=4\.1")
        self.assertEqual(await box.run(DENIED), "")


async def reboots(box: Box, node: str) -> None:
    """Reboot a node, and wait until it is another boot's."""
    identity = ("node", "run", node, "--", "cat", "/proc/sys/kernel/random/boot_id")
    before = await box.ok(*identity)
    await box.ok("node", "reboot", node)

    async def again() -> bool:
        done = await box.walt(*identity)
        return done.status == 0 and done.stdout.decode() not in ("", before)

    await box.until(again, f"{node} has rebooted", patient(240), every=2.0)
