"""`make run` and `make stop` themselves, with a configuration of their own."""

from __future__ import annotations

import os
import re
import sys

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import CACHE, ROOT, LivePlatform, why_not


class QuickstartTests(TestCase):
    skip = why_not()
    timeout = patient(500)

    async def make(self, platform: LivePlatform, target: str) -> str:
        """Run one of the two commands; return its output."""
        argv = ["make", "--no-print-directory", "-C", str(ROOT), target,
                f"VENV={sys.prefix}", f"CONFIG={platform.config}", "VARIANT=small"]
        environment = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("MAKE", "WALT_"))
        }
        result = await platform.runner.run(
            ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), *argv],
            check=False, timeout=400,
        )
        output = result.stdout.decode() + result.stderr.decode()
        self.assertEqual(result.status, 0, output)
        return output

    async def tutorial(self, platform: LivePlatform) -> None:
        """Type the commands of the tutorial, as they are written there."""
        page = (ROOT / "walt/doc/tutorial.md").read_text()
        commands = re.findall(r"^    ((?:walt|echo) .*)$", page, re.MULTILINE)
        self.assertGreater(len(commands), 10)
        settings = [
            f"WALT_SERVER=unix:{platform.runtime}/rpc.sock", "WALT_USERNAME=demo",
            f"PATH={sys.prefix}/bin:{os.environ['PATH']}", f"HOME={platform.base}",
        ]
        for command in commands:
            typed = b"exit\n" if " shell " in command else b""
            # Without a terminal, nobody is asked whether log lines may be lost.
            command = command.replace(" remove ", " remove --force ")
            done = await platform.runner.run(
                ["env", *settings, "bash", "-c", command], stdin=typed, check=False,
                timeout=patient(200),
            )
            self.assertEqual(done.status, 0, f"{command}: {done.stdout!r} {done.stderr!r}")
            if "log show" in command:
                self.assertIn(b"it works", done.stdout)
        shown = await platform.ok("node", "show", "--names-only", user="demo")
        self.assertEqual(shown.split(), ["vnode1"])

    async def test_run_and_stop(self) -> None:
        """A node is booted and answers; a second run keeps it; after the end nothing is left."""
        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        platform.config.write_text(
            platform.config.read_text().replace(f"{platform.base}/c\n", f"{CACHE}\n")
        )
        self.addCleanup(self.make, platform, "stop")
        told = await self.make(platform, "run")
        self.assertIn("The platform is ready", told)
        self.assertIn(f"WALT_SERVER=unix:{platform.runtime}/rpc.sock", told)
        system = await platform.ok("node", "run", "vnode1", "--", "uname", "-a", user="demo")
        self.assertIn("Linux vnode1", system)

        identity = ("node", "run", "vnode1", "--", "cat", "/proc/sys/kernel/random/boot_id")
        boot = await platform.ok(*identity, user="demo")
        self.assertNotIn("Starting the server", await self.make(platform, "run"))
        self.assertEqual(await platform.ok(*identity, user="demo"), boot)

        await self.tutorial(platform)
        self.assertIn("Stopping the server", await self.make(platform, "stop"))
        self.assertEqual(platform.left_overs(), [])
        self.assertIn("not running", await self.make(platform, "stop"))
