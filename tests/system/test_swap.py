"""The real nbdkit with our plugin, spoken to in its own protocol."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from ipaddress import IPv4Address
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.hanging import SHORT, stop_and_come_back
from tests.system.netns import Namespace, short_dir, why_not
from walt.server.adapters.nbdkit.daemon import SwapService
from walt.server.domain.network_services.swap import SwapConfig

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "192.168.77.1"
OTHER = "192.168.78.1"


class SwapTests(TestCase):
    skip = why_not("nbdkit", "ip", "nsenter", "setpriv")
    timeout = patient(60)

    async def start(self, reserve: int = 0) -> None:
        """Run the service in a namespace with two addresses."""
        self.namespace = Namespace(self)
        self.namespace.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        self.namespace.run("ip", "address", "add", f"{OTHER}/32", "dev", "lo")
        self.dir = short_dir(self)
        self.service = SwapService(
            reactor, self.namespace.launcher, directory=self.dir / "nbdkit",
            runtime=self.dir / "run", place=self.namespace.inside, patience=SHORT,
        )
        self.service.startService()
        self.addCleanup(self.service.stopService)
        await self.service.apply(SwapConfig(IPv4Address(ADDRESS), reserve=reserve))
        await self.listening()

    async def listening(self) -> None:
        """Wait until the port is open."""
        while "10809" not in self.namespace.run("ss", "-Hltn"):
            await deferLater(reactor, 0.05)

    async def client(self, *words: str) -> str:
        """Run a Python client inside the namespace."""
        argv = self.namespace.command(sys.executable, *words)
        out, err, status = await getProcessOutputAndValue(
            argv[0], argv[1:], {**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.assertEqual(status, 0, err.decode())
        return bytes(out).decode()

    async def test_areas(self) -> None:
        """Size from the name, sparse, of one connection alone, freed when it ends."""
        await self.start()
        told = json.loads(await self.client(
            "-m", "tests.system.nbd_client", ADDRESS, "10809", str(self.dir / "nbdkit" / "areas")
        ))
        self.assertEqual(told, {
            "flags": 3, "sizes": [16 << 30, 1 << 30], "blocks": [1, 4096, 1 << 20],
            "zeros": True, "written": 0, "read": True, "other": True,
            "beyond": errno.EINVAL, "files": [], "used": True, "accepted": [False] * 6,
            "still": True, "left": 0,
        })

    async def test_disk_that_fills(self) -> None:
        """Areas never take the last space of the server: writes fail, reads do not."""
        await self.start(reserve=1 << 60)
        self.assertEqual(await self.client(
            "-c", "from tests.system.nbd_client import *\n"
            f"one = Client('{ADDRESS}', 10809, b'swap-2G')\n"
            "print(one.size >> 30, one.request(WRITE, 0, 512, bytes(512)),"
            " one.request(READ, 0, 4) == bytes(4))"
        ), f"2 {errno.ENOSPC} True\n")

    async def test_stopped_process(self) -> None:
        """nbdkit that hangs is noticed and replaced; being asked is no error in its log."""
        lines: list[str] = []
        observer: ILogObserver = lambda event: lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        await self.start()
        await stop_and_come_back(self.service)
        self.assertEqual([line for line in lines if "nbdkit: nbdkit" in line], [])

    async def test_place_rights_and_end(self) -> None:
        """Only walt-net's address, no rights; started again when killed; gone at the stop."""
        await self.start()
        self.assertEqual(
            self.namespace.run("ss", "-Hltn").split()[3], f"{ADDRESS}:10809"
        )
        pid = self.service.health.pid
        status = Path(f"/proc/{pid}/status").read_text()
        self.assertIn("\nUid:\t65534\t65534\t65534\t65534\n", status)
        self.assertIn("\nCapEff:\t0000000000000000\n", status)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while self.service.health.restarts == 0 or not self.service.health.running:
            await deferLater(reactor, 0.05)
        await self.listening()
        pid = self.service.health.pid
        await self.service.stopService()
        self.assertFalse(Path(f"/proc/{pid}").exists())
