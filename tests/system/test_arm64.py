"""Images of arm64 from recipes, on QEMU's machine of that architecture."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, Program, why_not
from walt.common.qemu import ARM

MAC = "52:54:00:ab:cd:64"
NAME = "node-abcd64"
BOARD_MAC = "b8:27:eb:00:00:64"
BOARD = "node-000064"
UBOOT = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
# What the loader on the card of a board does (spec node-protocols §4.6), which starts over when
# its files are not there yet.
LOADER = (
    b"setenv bootp_vci walt.node.rpi-4-b; setenv autoload no; while true; do dhcp;"
    b" if tftpboot ${scriptaddr} start.uboot; then source ${scriptaddr}; fi; sleep 2; done\n"
)


class ArmTests(TestCase):
    skip = why_not() or (
        None if shutil.which("qemu-system-aarch64") else "not installed: qemu-system-arm"
    )
    timeout = patient(500)

    async def _cable(self) -> str:
        """Make a machine of walt-net, a namespace with a bridge of that name; return its name."""
        platform, other = self.platform, f"{self.platform.namespace}v"
        await platform.runner.run(["ip", "netns", "add", other])
        self.addCleanup(platform.runner.run, ["ip", "netns", "del", other], check=False)
        await platform.runner.run(["ip", "-n", platform.namespace, "-batch", "-"], stdin=(
            f"link add cable type veth peer name uplink netns {other}\n"
            "link set cable master walt-net up\n"
        ).encode())
        await platform.runner.run(["ip", "-n", other, "-batch", "-"], stdin=(
            b"link add walt-net type bridge\nlink set walt-net up\n"
            b"link set uplink master walt-net up\n"
        ))
        return other

    async def _lend(self) -> Path:
        """Start walt-virtual-node there; return where its files are."""
        platform, home = self.platform, self.platform.base / "lent"
        other = await self._cable()
        home.mkdir()
        lent = Program()
        argv = [
            "nsenter", f"--net=/run/netns/{other}", "--",
            sys.executable, "-c", "from walt.virtual.main import main; main()",
            "--mac", MAC, "--model", "qemu-arm-64", "--net-conf-udhcpc", "--boot-delay", "0",
            "--ram", "512M", "--disks", "1G[template=ext4]", "--attach-usb",
            "--pid-path", f"{home}/pid", "--screen-session-path", f"{home}/screen",
            "--disks-path", f"{home}/disks", "--networks-path", f"{home}/networks",
            "--log-file", f"{home}/log", "--log-prefix", "lent",
        ]
        transport = platform.reactor.spawnProcess(
            lent, argv[0], argv,
            {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(home)}, str(home),
        )

        async def end() -> None:
            if transport.pid:
                transport.signalProcess("TERM")
            await lent.ended

        self.addCleanup(end)
        self.lent = lent
        return home

    async def _booted(self) -> Any:
        tables = json.loads(await self.platform.ok("node", "show", "--all", "--json"))
        return [row for row in tables["free"] if row["booted"]]

    async def test_a_whole_boot(self) -> None:
        """It is registered, boots over the network, is commanded, and boots again."""
        from twisted.internet import reactor

        self.platform = platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image("arm64")
        await platform.start()
        home = await self._lend()
        try:
            (row,) = await platform.until(self._booted, "the node booted", 180)
        except AssertionError as error:
            told = self.lent.out.decode(errors="replace")[-3000:]
            raise AssertionError(f"{error}\n{(home / 'log').read_text()}\n{told}") from None
        self.assertEqual((row["name"], row["model"]), (NAME, "qemu-arm-64"))
        self.assertIn("the machine uses accelerator tcg", (home / "log").read_text())
        seen = await platform.ok(
            "node", "run", NAME, "--", "uname -m; cat /proc/cmdline /proc/partitions;"
            " cat /sys/bus/pci/devices/*/vendor; ls /sys/bus/usb/devices;"
            " echo kept > /persist/file; touch /root/mine",
        )
        machine, arguments, *others = seen.splitlines()
        self.assertEqual(machine, "aarch64")
        self.assertTrue(
            arguments.endswith(" sysctl.abi.cp15_barrier=2 sysctl.abi.setend=2"), arguments
        )
        self.assertTrue(any(line.endswith(" sda1") for line in others), others)
        # The controller of the USB sockets that are lent, and its driver.
        self.assertIn("0x1033", others)
        self.assertIn("usb1", others)
        await platform.ok("node", "reboot", NAME)
        await platform.until(self._booted, "it booted again", 180)
        again = await platform.ok(
            "node", "run", NAME, "--", "cat /persist/file; ls /root/mine; uname -m"
        )
        self.assertEqual(again, "kept\naarch64\n")


class RaspberryPiTests(TestCase):
    """The image of a Raspberry Pi 4, on a machine that QEMU has: by U-Boot, to the end."""

    skip = ArmTests.skip or (None if UBOOT.exists() else "not installed: u-boot-qemu")
    timeout = patient(500)

    async def test_a_whole_boot(self) -> None:
        """U-Boot asks as the loader of boards does: it is registered, boots, is commanded."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image("rpi-4-b")
        await platform.start()
        board = await self._power_on(platform)

        async def told(text: bytes) -> bool:
            return text in board.out

        async def booted() -> bool:
            tables = json.loads(await platform.ok("node", "show", "--all", "--json"))
            return any(row["booted"] for row in tables["free"])

        await platform.until(lambda: told(b"Hit any key"), "U-Boot is there", 60, 0.05)
        board.transport.write(b"\n")
        await platform.until(lambda: told(b"=> "), "U-Boot waits for commands", 30)
        board.transport.write(LOADER)
        try:
            await platform.until(booted, "the board booted", 240)
        except AssertionError as error:
            raise AssertionError(f"{board.out.decode(errors='replace')[-3000:]}\n{error}") from None
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        self.assertIn(f"new node name={BOARD} model=rpi-4-b mac={BOARD_MAC}", events)
        seen = await platform.ok(
            "node", "run", BOARD, "--", "uname -m; cat /proc/cmdline; echo kept > /persist/file"
        )
        self.assertTrue(seen.startswith("aarch64\n"))
        self.assertIn(f" BOOTIF=01-{BOARD_MAC.replace(':', '-')} ", seen)
        self.assertIn(" walt.node.model=rpi-4-b ", seen)
        # It reboots to the beginning of U-Boot, as a board does.
        seen_once = board.out.count(b"Hit any key")
        await platform.ok("node", "reboot", BOARD)

        async def again() -> bool:
            return board.out.count(b"Hit any key") > seen_once

        await platform.until(again, "U-Boot is there again", 120, 0.5)

    async def _power_on(self, platform: LivePlatform) -> Program:
        ip = ["ip", "-n", platform.namespace]
        await platform.runner.run([*ip, "tuntap", "add", "dev", "board", "mode", "tap"])
        await platform.runner.run([*ip, "link", "set", "board", "master", "walt-net", "up"])
        board = Program()
        argv = [
            "nsenter", f"--net=/run/netns/{platform.namespace}", "--", "setpriv",
            "--pdeathsig", "KILL", "--", ARM.program, "-nodefaults",
            "-machine", ARM.machine, "-cpu", ARM.emulated_cpu, "-m", "1024", "-display", "none",
            "-monitor", "none", "-serial", "stdio", "-bios", str(UBOOT),
            "-netdev", "tap,id=n,ifname=board,script=no,downscript=no",
            "-device", f"{ARM.nic},netdev=n,mac={BOARD_MAC}",
        ]
        transport = platform.reactor.spawnProcess(board, argv[0], argv, os.environ)

        async def end() -> None:
            transport.signalProcess("KILL")
            await board.ended

        self.addCleanup(end)
        return board
