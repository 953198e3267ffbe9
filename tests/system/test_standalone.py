"""walt-server-dhcpd, -named and -tftpd serve what the server wrote, when it is not there."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, why_not
from tests.system.netns import sh
from walt.server.adapters.network.namespace import RUN_NETNS, inside
from walt.server.runtime.watching import NoAnswer
from walt.server.tools.doctor import probes


class StandaloneTests(TestCase):
    skip = why_not()
    timeout = patient(200)

    def start(self, platform: LivePlatform, name: str) -> subprocess.Popen[str]:
        """Start one of them."""
        code = (
            "from walt.server.tools import standalone; import sys;"
            f" sys.exit(standalone.{name}_main())"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, stdin=subprocess.DEVNULL,
            env={"PYTHONPATH": str(ROOT), "WALT_SERVER_CONF": str(platform.config),
                 "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    async def test_without_the_server(self) -> None:
        """They refuse while the server runs them; then each answers as the server's did."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()
        address = f"{platform.net}.1"
        for name in ("dhcpd", "named", "tftpd"):
            process = self.start(platform, name)
            told = process.communicate(timeout=patient(30))[0]
            self.assertEqual(process.returncode, 1, told)
            self.assertIn(f"the server runs {name} already", told)
        # Killed, it leaves the network of the platform, and files.
        await platform.stop(signal.SIGKILL)
        for name, probe in (
            ("named", partial(probes.dns, address)),
            ("tftpd", partial(probes.tftp, address, "pxe/walt.ipxe")),
        ):
            self.assertRaises(NoAnswer, self.ask, platform, probe)
            process = self.start(platform, name)
            assert process.stdout is not None
            self.assertIn("ip netns exec", process.stdout.readline())

            async def answers(probe: partial[None] = probe) -> bool:
                try:
                    self.ask(platform, probe)
                except NoAnswer:
                    return False
                return True

            await platform.until(answers, name, 30)
        process = self.start(platform, "dhcpd")
        assert process.stdout is not None
        for line in process.stdout:
            if "Server starting service" in line:
                break
        else:
            self.fail("dhcpd ended")
        for one in Path(f"{platform.state}/services/dhcpd").glob("dhcpd.conf"):
            one.unlink()
        process.kill()
        process.wait()
        process = self.start(platform, "dhcpd")
        self.assertIn("start it once", process.communicate(timeout=patient(30))[0])
        self.assertEqual(process.returncode, 1)
        sh("ip", "netns", "delete", platform.namespace)

    def ask(self, platform: LivePlatform, probe: partial[None]) -> None:
        """Ask a daemon in the network of the platform."""
        with inside(RUN_NETNS / platform.namespace):
            probe()
