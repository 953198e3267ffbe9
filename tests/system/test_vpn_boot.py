"""A machine in another network boots through the tunnel, as a board in another building does."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system import vpn_board
from tests.system.live import CACHE, why_not
from tests.system.processes import processes
from tests.system.vpn_lab import MAC, NAME, OUTSIDE, PORT, VpnLab
from walt.server.domain.network_services.tunnel import PYTHON
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher
from walt.vpn.tunnel import LASTED

BOARD = "10.99.0.3"  # its address in the network outside


class VpnBootTests(TestCase):
    skip = why_not()
    timeout = patient(500)

    async def _image(self, lab: VpnLab) -> dict[str, str | Path]:
        """Return the files of an image for boards: what firmware loads is one file."""
        platform = lab.platform
        place = platform.base / "x"
        place.mkdir()
        await platform.runner.run([
            "python3", "-c", EXTRACT, str(newest_image()), str(place),
        ], timeout=120)
        (tun,) = place.rglob("tun.ko")
        boot = place / "boot" / "pc-x86-64"
        image = platform.base / "boot.img"
        with tarfile.open(image, "w") as archive:
            archive.add(boot / "kernel", "kernel")
            whole = vpn_board.extra(tun) + (boot / "initrd").read_bytes()
            member = tarfile.TarInfo("initrd")
            member.size = len(whole)
            archive.addfile(member, io.BytesIO(whole))
        return {"/boot/rpi-5-b/boot.img": image}

    async def _firmware(self, lab: VpnLab, key: Path, mac: str) -> tuple[Path, Path]:
        """Fetch and check the boot image from outside; return kernel and initrd."""
        base, path = lab.platform.base, f"per-ip/{lab.ip.replace('.', '-')}"
        for name in ("boot.img", "boot.sig"):
            answer = await lab.http(
                lab.outside, f"{path}/{name}", "--output", str(base / f"got.{name}"),
                server=OUTSIDE,
            )
            self.assertEqual(answer, "200 ")
        await lab.http(lab.outside, "node-conf/public.pem", "--output", str(base / "got.pem"),
                       server=OUTSIDE)
        digest, _, signed = (base / "got.boot.sig").read_text().splitlines()
        data = (base / "got.boot.img").read_bytes()
        self.assertEqual(digest, hashlib.sha256(data).hexdigest())
        (base / "sig").write_bytes(bytes.fromhex(signed.removeprefix("rsa2048: ")))
        checked = await lab.platform.runner.run([
            "openssl", "dgst", "-sha256", "-verify", str(base / "got.pem"), "-signature",
            str(base / "sig"), str(base / "got.boot.img"),
        ])
        self.assertEqual(checked.stdout, b"Verified OK\n")
        with tarfile.open(base / "got.boot.img") as archive:
            for name in ("kernel", "initrd"):
                member = archive.extractfile(name)
                assert member is not None
                (base / name).write_bytes(member.read())
        kept = vpn_board.eeprom(
            key, base / "known_hosts", outside=BOARD, vpn_mac=mac, entry_point=OUTSIDE,
            port=str(PORT),
        )
        with open(base / "initrd", "r+b") as initrd:
            rest = initrd.read()
            initrd.seek(0)
            initrd.write(kept + rest)
        return base / "kernel", base / "initrd"

    async def _power_on(self, lab: VpnLab, kernel: Path, initrd: Path) -> ChildService:
        there = lab.outside
        await lab.ip_of(there, "tuntap", "add", "dev", "board", "mode", "tap")
        await lab.ip_of(there, "link", "add", "lan", "type", "bridge")
        await lab.ip_of(there, "address", "flush", "dev", "wan")
        await lab.ip_of(there, "address", "add", "10.99.0.2/24", "dev", "lan")
        for one in ("board", "wan"):
            await lab.ip_of(there, "link", "set", one, "master", "lan", "up")
        await lab.ip_of(there, "link", "set", "lan", "up")
        board = ChildService(lab.platform.reactor, Launcher(), ChildSpec("board", (
            "nsenter", f"--net=/run/netns/{there}", "--",
            *vpn_board.qemu(kernel, initrd, "board", MAC, f"{lab.net}.1"),
        )), on_line=self.console.append)
        board.startService()
        self.addCleanup(board.stopService)
        return board

    async def _row(self, lab: VpnLab) -> dict[str, Any]:
        tables = json.loads(await lab.platform.ok("node", "show", "--all", "--json"))
        (row,) = tables["free"]
        return dict(row)

    async def _until_booted(self, lab: VpnLab, what: str) -> None:
        async def booted() -> bool:
            return bool((await self._row(lab))["booted"])

        try:
            await lab.platform.until(booted, what, 120)
        except AssertionError as error:
            console = "\n".join(self.console[-60:])
            raise AssertionError(f"{error}\n{console}") from None

    async def test_a_board_elsewhere(self) -> None:
        """It boots through the tunnel, reboots, and outlives the tunnel and the server."""
        from twisted.internet import reactor

        self.console: list[str] = []
        lab = VpnLab(self, reactor)
        await lab.prepare()
        await lab.start(await self._image(lab))
        key, mac = await lab.enrolled()
        await lab.leave()  # the board is carried to another building
        kernel, initrd = await self._firmware(lab, key, mac)
        await self._power_on(lab, kernel, initrd)
        await self._until_booted(lab, "the board booted through the tunnel")
        begun = time.monotonic()
        row = await self._row(lab)
        self.assertEqual((row["name"], row["type"], row["ip"]), (NAME, "vpn", lab.ip))
        run = ("node", "run", NAME, "--")
        seen = await lab.platform.ok(*run, "echo mark > /root/mark; cat /sys/class/net/*/address")
        self.assertIn(mac, seen)
        await self._check_lost(lab, begun)
        await self._check_restart(lab)
        await lab.platform.ok("node", "reboot", NAME)
        await self._until_booted(lab, "booted again")
        self.assertEqual(await lab.platform.ok(*run, "ls /root/mark; true"), "")

    async def _answers(self, lab: VpnLab) -> bool:
        ran = await lab.platform.walt("node", "run", NAME, "--", "cat /root/mark")
        return ran.stdout == b"mark\n"

    async def _check_lost(self, lab: VpnLab, begun: float) -> None:
        """A tunnel that breaks comes back by itself; the node did not reboot."""
        await lab.platform.sleep(max(0.0, begun + LASTED + 5 - time.monotonic()))
        for pid, command in processes().items():
            if command.startswith(PYTHON) and str(lab.platform.state) in command:
                os.kill(pid, signal.SIGKILL)

        async def answers() -> bool:
            return await self._answers(lab)

        await lab.platform.until(answers, "the same node by another tunnel", 90)

    async def _check_restart(self, lab: VpnLab) -> None:
        """The server restarts: the node waits for it."""
        await lab.platform.sleep(LASTED + 5)
        await lab.platform.stop(signal.SIGUSR2)
        await lab.platform.start()

        async def answers() -> bool:
            return await self._answers(lab)

        try:
            await lab.platform.until(answers, "the same node after a restart", 90)
        except AssertionError as error:
            console = "\n".join(self.console[-40:])
            raise AssertionError(f"{error}\n{console}") from None


def newest_image() -> Path:
    """Return the archive of the small image."""
    found = sorted(
        (CACHE / "default-images").glob("pc-x86-64-small-*.tar"),
        key=lambda one: one.stat().st_mtime,
    )
    return found[-1]


EXTRACT = """
import sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    archive.extractall(sys.argv[2], [one for one in archive
        if one.name.lstrip("./").startswith(("boot/", "lib/modules/", "usr/lib/modules/"))
        and one.isfile()])
"""
