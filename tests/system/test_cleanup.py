"""walt-server-cleanup: what a server that was killed leaves, taken away."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, why_not
from walt.server.runtime.process import ProcessResult
from walt.server.tools.cleanup import mounts_below


class CleanupTests(TestCase):
    skip = why_not()
    timeout = patient(200)

    async def test_after_a_kill(self) -> None:
        """Nothing is mounted any more, and the next server has its images."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()

        async def clean(config: Path = platform.config) -> ProcessResult:
            return await platform.runner.run(
                [sys.executable, "-m", "walt.server.tools.cleanup", "--config", str(config)],
                check=False, env={"PYTHONPATH": str(ROOT)}, timeout=patient(60),
            )

        done = await clean()
        self.assertEqual(
            (done.status, done.stderr), (0, b"the server runs: nothing was done\n")
        )
        done = await platform.event(
            "commit", "--force-name", "walt.node.pc-x86-64", "", f"{platform.net}.60",
            "02:00:00:00:00:60", "pc60", "0", "unknown",
        )
        self.assertEqual(done.status, 0, done.stderr)

        async def mounted() -> bool:
            return any("/images/" in str(one) for one in self.mounts(platform))

        await platform.until(mounted, "the image is mounted", 40)
        await platform.stop(signal.SIGKILL)
        self.assertTrue(self.mounts(platform))
        for _ in range(2):
            done = await clean()
            self.assertEqual(
                (done.status, self.mounts(platform)), (0, []), (done.stdout, done.stderr)
            )
        await platform.start()
        self.assertIn("pc-x86-64-default", await platform.ok("image", "search"))
        self.assertIn("pc60", await platform.ok("node", "show", "--all"))
        self.assertEqual((await clean(platform.base / "none.conf")).status, 0)

    def mounts(self, platform: LivePlatform) -> list[Path]:
        """Return what is mounted below the state directory."""
        return mounts_below(platform.state, Path("/proc/self/mounts").read_text())
