"""Three people at random for five minutes: the platform stands still for nobody."""

from __future__ import annotations

import os

from twisted.trial.unittest import TestCase

from tests.crowd.crowd import Crowd
from tests.patience import patient
from tests.system.live import LivePlatform, why_not

SEED = int(os.environ.get("WALT_CROWD_SEED", "20261128"))
SECONDS = 300.0


class CrowdTests(TestCase):
    skip = why_not()
    timeout = patient(1500)

    async def test_a_crowd(self) -> None:
        """Every command succeeds in good time, every node boots, everything is in step."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor, net="192.168.171")
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        crowd = Crowd(platform, SEED)
        await crowd.work(SECONDS)
        await crowd.look()
        self.assertEqual(crowd.faults, [], f"seed {SEED}\n{crowd.table()}")
        self.assertEqual(await platform.stop(), 0)
        self.assertEqual(platform.left_overs(), [])
