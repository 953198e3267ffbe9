"""A server whose database is somewhere else (`database.mode: external`)."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from walt.server.adapters.postgres.cluster import Cluster
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.migrate import create_database
from walt.server.runtime.child import ChildService
from walt.server.runtime.process import Launcher

COLUMNS = {
    "devices": "mac text, ip text, name text, type text, virtual boolean, conf jsonb",
    "topology": "mac1 text, mac2 text, port1 integer, port2 integer, confirmed boolean,"
                " last_seen timestamp with time zone",
    "images": "fullname text",
    "nodes": "mac text, image text, model text",
    "switches": "mac text, model text",
    "switchports": "mac text, port integer, name text",
    "logstreams": "id integer, issuer_mac text, name text, mode USER-DEFINED",
    "logs": "stream_id integer, timestamp timestamp with time zone, line text",
    "checkpoints": "username text, timestamp timestamp without time zone, name text",
    "poeoff": "mac text, port integer, reason text",
    "vpnauth": "vpnmac text, pubkeycert text, certid text, device_label text, revoked boolean",
    "vpnnodes": "mac text, vpnmac text",
}


class ExternalDatabaseTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_devices_and_logs_live_there(self) -> None:
        """The server makes its schema in the given database, and keeps no cluster itself.

        Its log is one for programs, here.
        """
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
        platform.server_environment["WALT_LOG_FORMAT"] = "json"
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
        await self._check_schema(database)
        self.assertFalse(Path(platform.state / "postgres").exists())
        self.assertEqual(await platform.stop(), 0)
        lines = [json.loads(line) for line in platform.log.read_text().splitlines()]
        self.assertIn("info", {line["level"] for line in lines})
        self.assertTrue(any("values" in line for line in lines))

    async def _check_schema(self, database: Database) -> None:
        """Tables and columns keep the names and types that programs of WalT 10 read."""
        rows = await database.query(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public'"
        )
        columns = {(table, column): kind for table, column, kind in rows}
        for table, text in COLUMNS.items():
            for word in text.split(", "):
                column, kind = word.split(" ", 1)
                self.assertEqual(columns.get((table, column)), kind, (table, column))
        keys = await database.query(
            "SELECT conrelid::regclass::text, string_agg(attname, ',' ORDER BY attnum)"
            " FROM pg_constraint, pg_attribute"
            " WHERE contype = 'p' AND attrelid = conrelid AND attnum = ANY(conkey)"
            " GROUP BY conrelid"
        )
        self.assertEqual(
            {table: key for table, key in keys if table in COLUMNS},
            {"devices": "mac", "images": "fullname", "nodes": "mac", "switches": "mac",
             "switchports": "mac,port", "logstreams": "id", "poeoff": "mac,port",
             "vpnauth": "vpnmac", "vpnnodes": "mac"},
        )
        [labels] = await database.query(
            "SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum"
            " WHERE enumtypid = 'logmode'::regtype"
        )
        self.assertEqual(labels, ("line,chunk",))
        indexes = {name for name, in await database.query("SELECT indexname FROM pg_indexes")}
        self.assertLessEqual({
            "devices_ip_idx", "logs_place_idx", "logs_stream_id_place_idx",
            "logstreams_issuer_mac_name_idx", "checkpoints_username_idx",
        }, indexes)
