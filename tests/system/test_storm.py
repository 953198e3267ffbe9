"""Many nodes that boot at the same moment: none is lost, none gets less than its files."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from bench.simulator import Fleet
from bench.storm.boots import Storm, boot_files
from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from tests.system.load import Load

NODES = 30


class StormTests(TestCase):
    skip = why_not()
    timeout = patient(180)

    async def test_all_at_once(self) -> None:
        """Their first boot, for which persistent data is made, and another one."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        load, fleet = Load(platform), Fleet(platform, NODES)
        self.addCleanup(platform.close)
        self.addCleanup(fleet.stop)
        self.addCleanup(load.database.close)
        await platform.import_image()
        await platform.start()
        await fleet.start()

        async def registered() -> bool:
            return await load.recorded() == NODES

        await platform.until(registered, "all are registered", 30)
        await platform.ok("node", "wait", "--timeout", "60", "all-nodes")
        for _ in range(2):
            boots = await Storm(fleet).run()
            await platform.ok("node", "wait", "--timeout", "60", "all-nodes")
            size = sum(boot_files(platform.state / "nodes", fleet.nodes[0]).values())
            self.assertEqual([boot.size for boot in boots], [size] * NODES)
            self.assertTrue(all(boot.persistent for boot in boots))
