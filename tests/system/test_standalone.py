"""walt-server-dhcpd, -named and -tftpd serve what the server wrote, when it is not there."""

from __future__ import annotations

import grp
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, why_not
from tests.system.netns import sh
from walt.server.adapters.lldp.probe import LOC_CHASSIS, SYS_OBJECT_ID, ask
from walt.server.adapters.network.namespace import RUN_NETNS, inside
from walt.server.runtime.watching import NoAnswer
from walt.server.tools.doctor import probes


class StandaloneTests(TestCase):
    skip = why_not()
    timeout = patient(200)

    def start(
        self, platform: LivePlatform, name: str, **more: str
    ) -> subprocess.Popen[str]:
        """Start one of them."""
        code = (
            "from walt.server.tools import standalone; import sys;"
            f" sys.exit(standalone.{name}_main())"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, stdin=subprocess.DEVNULL,
            env={"PYTHONPATH": str(ROOT), "WALT_SERVER_CONF": str(platform.config),
                 "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **more},
        )
        self.addCleanup(deferToThread, process.wait)
        self.addCleanup(process.kill)
        return process

    async def words(self, process: subprocess.Popen[str]) -> str:
        """Wait for its end; return what it said."""
        return (await deferToThread(process.communicate, timeout=patient(30)))[0]

    async def test_without_the_server(self) -> None:
        """They refuse while the server runs them; then each answers as the server's did."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()
        address = f"{platform.net}.1"
        await self.until_all_run(platform)
        for name in ("dhcpd", "named", "tftpd", "snmpd", "lldpd", "ptpd"):
            process = self.start(platform, name)
            told = await self.words(process)
            self.assertEqual(process.returncode, 1, told)
            self.assertIn(f"the server runs {name} already", told)
        # Killed, it leaves the network of the platform, and files.
        await platform.stop(signal.SIGKILL)
        for name, probe in (
            ("named", partial(probes.dns, address)),
            ("tftpd", partial(probes.tftp, address, "pxe/walt.ipxe")),
        ):
            self.assertRaises(NoAnswer, self.ask, platform, probe)
            pid_file = platform.base / f"{name}.pid"
            process = self.start(
                platform, name, PIDFILE=str(pid_file), TFTPD_BINARY_NAME="/usr/sbin/in.tftpd"
            )
            assert process.stdout is not None
            told = await deferToThread(process.stdout.readline)
            self.assertIn("ip netns exec", told)
            self.assertEqual("/usr/sbin/in.tftpd" in told, name == "tftpd")
            self.assertEqual(int(pid_file.read_text()), process.pid)

            async def answers(probe: partial[None] = probe) -> bool:
                try:
                    self.ask(platform, probe)
                except NoAnswer:
                    return False
                return True

            await platform.until(answers, name, 30)
        await self.announcing(platform, address)
        for name, word in (
            ("ptpd", "started successfully on walt-net"), ("dhcpd", "Server starting service"),
        ):
            process = self.start(platform, name)
            assert process.stdout is not None
            line = "?"
            while line and word not in line:
                line = await deferToThread(process.stdout.readline)
            self.assertTrue(line, f"{name} ended")
        for one in Path(f"{platform.state}/services/dhcpd").glob("dhcpd.conf"):
            one.unlink()
        process.kill()
        await self.words(process)
        process = self.start(platform, "dhcpd")
        self.assertIn("start it once", await self.words(process))
        self.assertEqual(process.returncode, 1)
        await deferToThread(sh, "ip", "netns", "delete", platform.namespace)

    async def until_all_run(self, platform: LivePlatform) -> None:
        """Wait until the server has started the last of them."""

        async def run() -> bool:
            rows = await platform.services()
            return all(rows[name]["pid"] for name in ("snmpd", "lldpd", "ptpd"))

        await platform.until(run, "all run", 30)

    async def announcing(self, platform: LivePlatform, address: str) -> None:
        """snmpd, by another name for its program, shows what lldpd tells it."""
        snmpd = self.start(
            platform, "snmpd", SNMPD_BINARY_NAME="/usr/sbin/snmpd", SNMPD_GROUP="nogroup"
        )
        for name, wanted in ((SYS_OBJECT_ID, "snmpd"), (LOC_CHASSIS, "lldpd")):

            async def shown(name: bytes = name) -> bool:
                with inside(RUN_NETNS / platform.namespace):
                    asking = Deferred.fromCoroutine(
                        ask(platform.reactor, address, 161, "private", name)
                    )
                try:
                    return await asking.addTimeout(1, platform.reactor)
                except (NoAnswer, TimeoutError):
                    return False
                finally:
                    await deferLater(platform.reactor, 0, lambda: None)

            await platform.until(shown, wanted, 60)
            if wanted == "snmpd":
                self.start(platform, "lldpd")
        status = Path(f"/proc/{snmpd.pid}/status").read_text()
        nogroup = str(grp.getgrnam("nogroup").gr_gid)
        self.assertIn(f"Gid:\t{nogroup}", status)

    def ask(self, platform: LivePlatform, probe: partial[None]) -> None:
        """Ask a daemon in the network of the platform."""
        with inside(RUN_NETNS / platform.namespace):
            probe()
