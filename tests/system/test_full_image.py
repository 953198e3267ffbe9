"""The image that `make run` builds: a whole Debian, with what people expect on a node."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not


class FullImageTests(TestCase):
    skip = why_not()
    timeout = patient(600)

    async def test_a_node(self) -> None:
        """It boots by systemd to the end, without a unit that failed, and has its tools."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image("full")
        await platform.start()
        await platform.ok("node", "create", "v1")
        await platform.ok("node", "wait", "--timeout", str(int(patient(300))), "v1")

        async def settled() -> str:
            done = await platform.walt("node", "run", "v1", "--", "systemctl", "is-system-running")
            told = done.stdout.decode().strip()
            return told if told in ("running", "degraded") else ""

        state = await platform.until(settled, "the system of the node is up", 120, 1)
        failed = await platform.ok("node", "run", "v1", "--", "systemctl", "--failed", "--plain")
        self.assertEqual(state, "running", failed)
        for program in ("python3", "ssh", "tcpdump", "walt-log-echo", "ip"):
            await platform.ok("node", "run", "v1", "--", "sh", "-c", f"command -v {program}")
        # What it writes is its own, and gone at the next boot: the image is shared.
        await platform.ok("node", "run", "v1", "--", "touch", "/root/mine")
        self.assertEqual(await platform.stop(), 0)
