"""A server whose database is somewhere else (`database.mode: external`)."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.system.live import LivePlatform, why_not
from walt.server.adapters.postgres.cluster import Cluster
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.migrate import create_database
from walt.server.runtime.child import ChildService
from walt.server.runtime.process import Launcher


class ExternalDatabaseTests(TestCase):
    skip = why_not()
    timeout = 120

    async def test_devices_and_logs_live_there(self) -> None:
        """The server makes its schema in the given database, and keeps no cluster itself."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        elsewhere = platform.base / "e"
        elsewhere.mkdir(mode=0o711)
        cluster = Cluster(elsewhere, elsewhere, platform.runner)
        await cluster.prepare()
        child = ChildService(reactor, Launcher(), cluster.spec())
        child.startService()
        self.addCleanup(child.stopService)
        await create_database(Database(reactor, cluster.maintenance_dsn))
        platform.write_config(f"database:\n  mode: external\n  dsn: {cluster.dsn}\n")
        await platform.start()
        mac = "00:11:22:33:44:55"
        event = await platform.event(
            "commit", "", "", "192.168.181.7", mac, "camera", "0", "unknown"
        )
        self.assertEqual((event.status, event.stderr), (0, b""))
        shown = await platform.ok("device", "show")
        self.assertIn("camera-334455", shown)
        database = Database(reactor, cluster.dsn)
        self.addCleanup(database.close)
        rows = await database.query("SELECT name, type FROM devices WHERE mac = %s", (mac,))
        self.assertEqual(rows, [("camera-334455", "unknown")])
        self.assertFalse(Path(platform.state / "postgres").exists())
        self.assertEqual(await platform.stop(), 0)
