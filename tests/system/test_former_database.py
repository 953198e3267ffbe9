"""Databases of older versions of WalT are taken over, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.cluster import shared
from tests.system.cluster import why_not as why_not_cluster
from tests.system.live import LivePlatform, why_not
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.migrate import migrate, scripts
from walt.server.adapters.postgres.restore import pending
from walt.server.tools.setup.downtime import Downtime, UnitServer
from walt.server.tools.setup.former import BACKUP, SOCKET, FormerDatabaseStep
from walt.server.tools.setup.machine import Machine, Programs

# As the tables of WalT 10 are (spec server §2.2): no key but those named there.
WALT_10 = """
CREATE TABLE devices (mac TEXT PRIMARY KEY, ip TEXT, name TEXT, type TEXT,
    virtual BOOLEAN DEFAULT FALSE, conf JSONB DEFAULT '{}');
CREATE TABLE topology (mac1 TEXT REFERENCES devices(mac), port1 INTEGER,
    mac2 TEXT REFERENCES devices(mac), port2 INTEGER, confirmed BOOLEAN, last_seen TIMESTAMPTZ);
CREATE TABLE images (fullname TEXT PRIMARY KEY);
CREATE TABLE nodes (mac TEXT REFERENCES devices(mac), image TEXT REFERENCES images(fullname),
    model TEXT);
CREATE TABLE switches (mac TEXT REFERENCES devices(mac), model TEXT);
CREATE TABLE switchports (mac TEXT REFERENCES devices(mac), port INTEGER, name TEXT,
    PRIMARY KEY (mac, port));
CREATE TYPE logmode AS ENUM ('line', 'chunk');
CREATE TABLE logstreams (id SERIAL PRIMARY KEY, issuer_mac TEXT REFERENCES devices(mac),
    name TEXT, mode logmode DEFAULT 'line');
CREATE TABLE logs (stream_id INTEGER REFERENCES logstreams(id), timestamp TIMESTAMPTZ, line TEXT);
CREATE TABLE checkpoints (username TEXT, timestamp TIMESTAMP, name TEXT);
CREATE TABLE poeoff (mac TEXT REFERENCES devices(mac), port INTEGER, reason TEXT);
CREATE TABLE vpnauth (vpnmac TEXT PRIMARY KEY, pubkeycert TEXT, certid TEXT, device_label TEXT,
    revoked BOOLEAN DEFAULT FALSE);
CREATE TABLE vpnnodes (mac TEXT REFERENCES devices(mac), vpnmac TEXT REFERENCES vpnauth(vpnmac));
CREATE INDEX logs_timestamp_idx ON logs (timestamp);
CREATE INDEX logs_stream_id_idx ON logs (stream_id);
CREATE INDEX logstreams_issuer_mac_name_idx ON logstreams (issuer_mac, name);
CREATE INDEX devices_ip_idx ON devices (ip);
CREATE INDEX checkpoints_username_idx ON checkpoints (username);
"""
NODE, TWIN, SWITCH, LOST = (f"02:00:00:00:00:{one}" for one in ("0a", "0b", "0c", "0d"))
ROWS = f"""
INSERT INTO devices VALUES
    ('52:54:00:01:02:03', '192.168.181.1', 'walt-server', 'server', FALSE, '{{}}'),
    ('{NODE}', '192.168.181.10', 'desk', 'node', FALSE, '{{"kexec.allow": false}}'),
    ('{TWIN}', '192.168.181.11', 'desk', 'unknown', FALSE, '{{}}'),
    ('{SWITCH}', '192.168.181.12', 'rack', 'switch', FALSE,
     '{{"snmp.version": 2, "snmp.community": "lab"}}'),
    ('{LOST}', '192.168.181.13', 'lost', 'node', FALSE, '{{}}');
INSERT INTO images VALUES ('alice/tools:latest'), ('waltplatform/rpi-4-b-default:latest');
INSERT INTO nodes VALUES ('{NODE}', 'waltplatform/rpi-4-b-default:latest', 'rpi-4-b');
INSERT INTO switches VALUES ('{SWITCH}', NULL);
INSERT INTO switchports VALUES ('{SWITCH}', 3, 'left');
INSERT INTO topology VALUES ('{NODE}', NULL, '{SWITCH}', 3, TRUE, now());
INSERT INTO logstreams VALUES (7, '{NODE}', 'sensor', 'line'), (8, '{NODE}', 'sensor', 'line'),
    (9, '{NODE}', 'console', 'chunk');
INSERT INTO logs VALUES
    (7, '2024-05-06 10:00:02+00', 'second'), (8, '2024-05-06 10:00:01+00', 'first'),
    (7, '2024-05-20 10:00:00+00', 'third'), (9, '1970-01-01 00:00:07+00', 'no clock'),
    (7, NULL, 'never');
INSERT INTO checkpoints VALUES ('alice', '2024-05-06 09:00:00', 'before'),
    ('alice', '2024-05-06 09:30:00', 'before');
INSERT INTO poeoff VALUES ('{SWITCH}', 3, 'powersave'), ('{SWITCH}', 3, 'powersave');
INSERT INTO vpnauth VALUES ('02:00:00:00:01:0a', 'cert', 'vpn_0200', NULL, FALSE);
INSERT INTO vpnnodes VALUES ('{NODE}', '02:00:00:00:01:0a');
SELECT setval('logstreams_id_seq', 9);
"""
# What the steps of spec server §2.3 changed, taken back.
WALT_9 = """
ALTER TABLE logs ALTER timestamp TYPE TIMESTAMP;
ALTER TABLE topology DROP last_seen;
"""
WALT_7 = WALT_9 + """
ALTER TABLE nodes ADD booted BOOLEAN DEFAULT FALSE;
ALTER TABLE logstreams DROP mode;
DROP TYPE logmode;
ALTER TABLE logstreams RENAME issuer_mac TO sender_mac;
ALTER TABLE images ADD ready BOOLEAN DEFAULT TRUE;
INSERT INTO images VALUES ('alice/half:latest', FALSE);
"""
WALT_4 = WALT_7 + f"""
ALTER TABLE devices DROP conf, DROP virtual;
ALTER TABLE switches ADD lldp_explore BOOLEAN, ADD poe_reboot_nodes BOOLEAN, ADD snmp_conf TEXT;
UPDATE switches SET lldp_explore = TRUE, snmp_conf = '{{"version": 2, "community": "lab"}}'
    WHERE mac = '{SWITCH}';
ALTER TABLE nodes ADD netsetup INTEGER DEFAULT 0;
UPDATE nodes SET netsetup = 1;
DROP TABLE poeoff;
DROP TABLE vpnnodes;
DROP TABLE vpnauth;
"""


def former(changes: str = "") -> str:
    """Make a database of an older version; return how to connect to it."""
    dsn = shared().fresh()
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET TimeZone TO 'UTC';" + WALT_10 + ROWS + changes)
    connection.close()
    return dsn


class TakeOverTests(TestCase):
    skip = why_not_cluster()
    timeout = patient(60)

    def database(self, dsn: str) -> Database:
        """Return a pool that ends with the test."""
        database = Database(reactor, f"{dsn} options='-c TimeZone=UTC'")
        self.addCleanup(database.close)
        return database

    async def check_all(self, database: Database, settings: dict[str, dict[str, Any]]) -> None:
        """What all versions have is there."""
        devices = await database.query("SELECT mac, name, type, conf FROM devices")
        self.assertEqual({mac: (name, kind) for mac, name, kind, _ in devices}, {
            "52:54:00:01:02:03": ("walt-server", "server"), NODE: ("desk", "node"),
            TWIN: ("desk-00000b", "unknown"), SWITCH: ("rack", "switch"),
            LOST: ("lost", "unknown"),
        })
        self.assertEqual({mac: conf for mac, _, _, conf in devices if conf}, settings)
        self.assertEqual(
            await database.query("SELECT mac, image, model FROM nodes"),
            [(NODE, "waltplatform/rpi-4-b-default:latest", "rpi-4-b")],
        )
        self.assertEqual(
            await database.query("SELECT fullname FROM images ORDER BY fullname"),
            [("alice/tools:latest",), ("waltplatform/rpi-4-b-default:latest",)],
        )
        self.assertEqual(
            await database.query("SELECT port, name FROM switchports"), [(3, "left")]
        )
        self.assertEqual(
            await database.query("SELECT mac1, mac2, port2, confirmed FROM topology"),
            [(NODE, SWITCH, 3, True)],
        )
        self.assertEqual(
            await database.query(
                "SELECT s.name, extract(epoch FROM l.timestamp)::integer, l.line,"
                " l.tableoid::regclass::text FROM logs l"
                " JOIN logstreams s ON s.id = l.stream_id ORDER BY l.place, l.arrival"
            ),
            [
                ("console", 7, "no clock", "logs_default"),
                ("sensor", 1714989601, "first", "logs_20240506"),
                ("sensor", 1714989602, "second", "logs_20240506"),
                ("sensor", 1716199200, "third", "logs_20240520"),
            ],
        )
        self.assertEqual(
            await database.query("SELECT count(*) FROM checkpoints"), [(1,)]
        )
        await database.execute(
            "INSERT INTO logstreams (issuer_mac, name) VALUES (%s, 'new')", (NODE,)
        )

    async def test_versions(self) -> None:
        """Each version comes over with what it had; a second start changes nothing."""
        settings: dict[str, dict[str, Any]] = {
            NODE: {"kexec.allow": False}, SWITCH: {"snmp.version": 2, "snmp.community": "lab"},
        }
        old = {
            NODE: {"netsetup": 1},
            SWITCH: {"snmp.version": 2, "snmp.community": "lab", "lldp.explore": True},
        }
        for changes, expected in (
            ("", settings), (WALT_9, settings), (WALT_7, settings), (WALT_4, old),
        ):
            database = self.database(former(changes))
            applied = await migrate(database, keep_former=False)
            self.assertEqual(applied, [number for number, _ in scripts()])
            await self.check_all(database, expected)
            self.assertEqual(await migrate(database), [])
            self.assertEqual(
                await database.query("SELECT to_regnamespace('walt_former') IS NULL"), [(True,)]
            )

    async def test_kept(self) -> None:
        """Where nobody has a copy, the former tables stay as they were."""
        database = self.database(former())
        await migrate(database)
        self.assertEqual(
            await database.query("SELECT count(*) FROM walt_former.logs"), [(5,)]
        )
        self.assertEqual(
            await database.query("SELECT mac, vpnmac FROM vpnnodes"), [(NODE, "02:00:00:00:01:0a")]
        )
        self.assertEqual(
            await database.query("SELECT mac, port, reason FROM poeoff"),
            [(SWITCH, 3, "powersave")],
        )

    async def test_whole_or_not_at_all(self) -> None:
        """What fails half-way leaves the database as it was, for the older version to go on."""
        database = self.database(former("CREATE TABLE boots (mac TEXT);"))  # in our way
        error = await self.assertFailure(
            Deferred.fromCoroutine(migrate(database)), psycopg2.errors.DuplicateTable
        )
        self.assertIn("boots", str(error))
        self.assertEqual(await database.query("SELECT count(*) FROM logs"), [(5,)])
        self.assertEqual(
            await database.query("SELECT to_regclass('schema_versions') IS NULL"), [(True,)]
        )


class PlatformTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_upgrade(self) -> None:
        """Set-up copies the database from Debian's cluster; the server loads it at its start."""
        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        root = platform.base / "machine"
        (root / SOCKET.relative_to("/")).parent.mkdir(parents=True)
        (root / SOCKET.relative_to("/")).touch()
        cluster = shared()
        self.patch(os, "environ", {**os.environ, "PGHOST": str(cluster.base), "PGUSER": "root"})
        state = Path("/var/lib/walt")
        machine = Machine(Programs(), root)
        step = FormerDatabaseStep(machine, state, Downtime(UnitServer(machine)))
        self.assertEqual(step.lacks(), [])  # there is no database walt
        name = former().partition("dbname=")[2].split()[0]
        connection = psycopg2.connect(cluster.dsn("postgres"))
        connection.autocommit = True
        connection.cursor().execute(f"ALTER DATABASE {name} RENAME TO walt")

        async def drop() -> None:
            await deferLater(reactor, 0, lambda: None)  # not in a turn of the server's code
            connection.cursor().execute("DROP DATABASE walt")

        self.addCleanup(drop)
        self.assertEqual(len(step.lacks()), 1)
        step.apply()
        self.assertEqual(step.lacks(), [])
        copy, dump = (root / one.relative_to("/") for one in (BACKUP, pending(state)))
        self.assertEqual(copy.stat().st_mode & 0o777, 0o600)
        self.assertEqual(copy.read_bytes(), dump.read_bytes())
        place = pending(platform.state)
        place.parent.mkdir()
        shutil.copy(dump, place)
        await platform.start()
        self.assertIn("rack", await platform.ok("device", "show"))
        self.assertFalse(place.exists())
        self.assertEqual(
            subprocess.run(
                ["psql", "-h", str(platform.runtime / "postgres"), "-U", "root", "-Atqc",
                 "SELECT to_regnamespace('walt_former') IS NULL, count(*) FROM logs", "walt"],
                capture_output=True, text=True, check=True,
            ).stdout.strip().partition("|")[0], "t",
        )

    async def test_people_find_their_things(self) -> None:
        """Devices, settings, logs and checkpoints are shown by a server on that database."""
        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        platform.write_config(f"database:\n  mode: external\n  dsn: {former()}\n")
        await platform.start()
        shown = json.loads(await platform.ok("device", "show", "--json"))
        names = {row["name"] for table in shown.values() for row in table}
        self.assertLessEqual({"desk", "desk-00000b", "rack", "lost"}, names)
        self.assertIn("kexec.allow", await platform.ok("node", "config", "desk"))
        lines = await platform.ok("log", "show", "--history", "full", "--issuers", "desk")
        self.assertEqual(
            [line.rpartition("-> ")[2] for line in lines.splitlines() if "sensor" in line],
            ["first", "second", "third"],
        )
        self.assertIn("before", await platform.ok("log", "list-checkpoints"))
        self.assertIn("without power", platform.log.read_text())
        self.assertIn("rack port 3", platform.log.read_text())
