"""Virtual nodes of arm64: the image of the recipe, on QEMU's machine of that architecture."""

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

MAC = "52:54:00:ab:cd:64"
NAME = "node-abcd64"


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
