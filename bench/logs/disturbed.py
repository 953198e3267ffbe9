"""Ingestion while something else goes on: a device is forgotten, another one floods."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import psycopg2
from twisted.internet.defer import Deferred

from bench.logs.reader import Reader
from tests.system.live import ROOT, LivePlatform
from tests.system.load import Load, figure

FORGOTTEN = 2_000_000  # lines
FLOOD = 1_000_000
WATCHED = 60.0  # seconds


class Disturbed:
    """Benches on a server that runs; `addresses` are those of its nodes, `inside` enters it."""

    def __init__(
        self, platform: LivePlatform, load: Load, dsn: str, inside: Sequence[str],
        addresses: Sequence[str],
    ) -> None:
        self.platform = platform
        self.load = load
        self.dsn = dsn
        self.inside = inside
        self.addresses = addresses

    def _python(self, *words: str, timeout: float = 300) -> Coroutine[Any, Any, Any]:
        return self.platform.runner.run(
            [*self.inside, sys.executable, "-m", *words], env={"PYTHONPATH": str(ROOT)},
            timeout=timeout,
        )

    async def _receipts(self, seconds: float) -> list[float]:
        server, prober = f"{self.platform.net}.1", self.addresses[1]
        result = await self._python("bench.logs.probe", "receipts", server, prober, str(seconds))
        return sorted(float(word) for word in result.stdout.split())

    async def forget(self) -> None:
        """Print the longest gap of ingestion while a device with many lines is forgotten."""
        mac = "02:00:00:00:01:00"
        with psycopg2.connect(self.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO logs (stream_id, timestamp, place, arrival, line)"
                " SELECT (SELECT id FROM logstreams WHERE name = 'bench' AND issuer_mac = %s),"
                " moment, moment, n, 'line ' || n || repeat('x', 85) FROM generate_series(1, %s) n,"
                " LATERAL (SELECT now() - n * interval '100 microseconds' AS moment) AS times",
                (mac, FORGOTTEN),
            )
        connection.close()
        rows = json.loads(await self.platform.ok("device", "show", "--json"))
        (name,) = [
            row["name"] for group in rows.values() for row in group if row["mac"] == mac
        ]
        quiet = await self._receipts(WATCHED)
        watched: Deferred[list[float]] = Deferred.fromCoroutine(self._receipts(WATCHED))
        await self.platform.sleep(1)
        start = time.perf_counter()
        await self.platform.ok("device", "forget", "--force", name)
        figure(f"walt device forget, {FORGOTTEN} lines: answered", time.perf_counter() - start, "s")
        left = 1
        while left:
            await self.platform.sleep(0.5)
            (left,) = (await self.load.database.query("SELECT count(*) FROM logremovals"))[0]
        figure("  lines deleted", time.perf_counter() - start, "s")
        disturbed = await watched
        figure("a line stored, nothing else going on: median", quiet[len(quiet) // 2], "ms")
        figure("  99 %", quiet[len(quiet) * 99 // 100], "ms")
        figure("  longest", quiet[-1], "ms")
        figure("  median meanwhile", disturbed[len(disturbed) // 2], "ms")
        figure("  99 % meanwhile", disturbed[len(disturbed) * 99 // 100], "ms")
        figure("  longest meanwhile", disturbed[-1], "ms", 100)

    async def flood(self) -> None:
        """Print how long lines of a quiet node take while another one floods."""
        reader = await Reader.of(self.platform, "probe")
        server = f"{self.platform.net}.1"
        quiet: Deferred[Any] = Deferred.fromCoroutine(
            self._python("bench.logs.probe", "lines", server, self.addresses[1], "12")
        )
        await self.platform.sleep(1)
        await self._python(
            "bench.logs.sender", server, "NO_TIMESTAMPS", str(FLOOD), self.addresses[2]
        )
        await quiet
        await self.platform.sleep(1)
        ages = await reader.end()
        figure("one node floods: largest delay of another's lines", ages[-1] * 1000, "ms", 1000)
