"""Archived log lines through the walt command: a server moves old weeks, people read on."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

import duckdb
from pyarrow import parquet
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from tests.system.load import add_senders

DAY = 86400
SEND = """
import socket, sys
one = socket.create_connection((sys.argv[1], 12347), source_address=(sys.argv[2], 0))
one.sendall(b'0\\ntemp\\nTIMESTAMPS_INSIDE\\n')
for moment in sys.argv[3:]:
    one.sendall(b''.join(
        b'%f %s line %d\\n' % (float(moment) + n, moment.encode(), n) for n in range(100)
    ))
one.sendall(b'CLOSE\\n')
assert one.recv(1) == b''
"""


class LogArchiveTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def shown(self, *words: str) -> list[dict[str, Any]]:
        """Return the lines that walt log show gives."""
        told = await self.platform.ok(
            "log", "show", "--issuers", "all-nodes", "--json", *(words or ("--history", "full"))
        )
        return [json.loads(line) for line in told.splitlines()]

    async def doctor(self) -> dict[str, Any]:
        """Return what the doctor finds of the archive."""
        done = await self.platform.walt(
            "doctor", "--json", "--config", str(self.platform.config), timeout=patient(120)
        )
        found: dict[str, Any] = next(
            row for row in json.loads(done.stdout) if row["step"] == "log archive"
        )
        return found

    async def test_life(self) -> None:
        """Weeks move at a start; show, export, windows, following, counts and files agree."""
        from twisted.internet import reactor

        self.platform = platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        archive = platform.base / "archive"
        archive.mkdir()
        platform.write_config(f"logs:\n  archive:\n    to: {archive}\n    after: 3\n")
        await platform.import_image()
        await platform.start()
        addresses = [f"{platform.net}.{number}" for number in (11, 12)]
        inside = await add_senders(platform, addresses)
        now = int(time.time())
        old = [now - days * DAY for days in (40, 33, 26)]
        for address in addresses:
            await platform.runner.run([
                *inside, sys.executable, "-c", SEND, f"{platform.net}.1", address,
                *map(str, [*old, now - 500]),
            ])
        before = await self.shown()
        self.assertEqual(len(before), 800)
        for name, moment in (("begin", old[1] + 9), ("end", old[1] + 20)):
            date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
            await platform.ok("log", "add-checkpoint", "--date", date, name)
        window = ("--history", "begin:end")
        some = await self.shown(*window)
        self.assertEqual(len(some), 20)  # both bounds are exclusive

        await platform.stop(signal.SIGUSR2)
        await platform.start()

        async def archived() -> bool:
            if len(list(archive.glob("*.parquet"))) < 3:
                return False
            return "3 files" in (await self.doctor())["text"]  # the database has them, too

        await platform.until(archived, "three weeks are files", patient(60))
        self.assertEqual(await self.shown(), before)
        self.assertEqual(await self.shown(*window), some)
        await platform.ok("log", "export", "--history", "full", "--issuers", "all-nodes",
                          "--format", "parquet", str(platform.base / "all.parquet"))
        exported = parquet.read_table(platform.base / "all.parquet")
        self.assertEqual(exported["line"].to_pylist(), [one["line"] for one in before])
        following = await platform.ok(
            "log", "wait", "--issuers", "all-nodes", "--time-margin", str(41 * DAY),
            f"{old[0]} line 99",
        )
        self.assertIn(f"{old[0]} line 99", following)
        counted = duckdb.sql(
            f"SELECT count(*), count(DISTINCT issuer) FROM '{archive}/*.parquet'"
        ).fetchall()
        self.assertEqual(counted, [(600, 2)])
        done = await platform.walt("advanced", "backup", str(platform.base / "b.tar"),
                                   "--config", str(platform.config))
        self.assertIn(f"keep a copy of {archive}", (done.stdout + done.stderr).decode())

        # One that is away: it is named to who reads, and by the doctor; the rest is read.
        oldest = min(archive.glob("*.parquet"))
        oldest.rename(platform.base / "away")
        done = await platform.walt(
            "log", "show", "--history", "full", "--issuers", "all-nodes", "--json"
        )
        self.assertNotEqual(done.status, 0)
        self.assertIn(f"{oldest.name} is missing", done.stderr.decode())
        self.assertEqual(await self.shown(*window), some)
        wrong = await self.doctor()
        self.assertEqual(wrong["state"], "wrong")
        self.assertIn(f"{oldest.name} is missing", wrong["text"])
        (platform.base / "away").rename(oldest)

        # A device is forgotten: its archived lines are counted before, and go.
        name = before[0]["issuer"]
        asked = await platform.walt("device", "forget", name)
        self.assertIn("400", (asked.stdout + asked.stderr).decode())
        former = set(archive.glob("*.parquet"))
        await platform.ok("device", "forget", "--force", name)
        left = [one for one in before if one["issuer"] != name]
        self.assertEqual(await self.shown(), left)

        async def rewritten() -> bool:
            written = [one for one in archive.glob("*.parquet") if one not in former]
            return len(written) == 3 and not any(
                name in parquet.read_table(one)["issuer"].to_pylist() for one in written
            )

        await platform.until(rewritten, "the files have no lines of it", patient(60))
        self.assertEqual(await self.shown(), left)
