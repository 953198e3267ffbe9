"""Run with `python -m bench.api`, as root: the Python API of the client, on a live server.

Logs are read beside psycopg2, which reads the same table in the same minute.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import psycopg2

from tests.system.live import ROOT, LivePlatform
from tests.system.load import Load, figure, run_bench, wall_times, walt_command

LINES = 1_000_000
NODES = 1000

FIRST = "from walt.client import api; api.images.get_images()"
FILTER = """
import time
from walt.client import api
api.tools.get_server()
start = time.perf_counter()
found = api.nodes.get_nodes("all-nodes").filter(model="pc-x86-64", virtual=False)
print(time.perf_counter() - start, len(found))
"""
# What libraries do with a set, unasked; calls to the server are counted.
CALLS = """
import copy, pickle
import numpy
from walt.client import api
from walt.client.scripting.link import LINK
nodes = api.nodes.get_nodes("all-nodes")
counted, real = [], LINK.call
LINK.call = lambda *words, **named: (counted.append(words), real(*words, **named))[1]
for name, work in (
    ("numpy.asarray", lambda: numpy.asarray(list(nodes))), ("copy", lambda: copy.copy(nodes)),
    ("deepcopy", lambda: copy.deepcopy(nodes)), ("pickle", lambda: pickle.dumps(nodes)),
    ("completion", lambda: (dir(nodes), nodes._ipython_key_completions_())),
):
    counted.clear()
    work()
    print(name, len(counted))
"""
LOGS = """
import resource, sys, time
from walt.client import api

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def lines():
    return api.logs.get_logs(history="full", issuers="all-nodes")

if sys.argv[1] == "rows":
    before = peak()
    start = time.perf_counter()
    count = sum(1 for _ in lines())
else:
    import pyarrow.compute
    next(lines())
    before = peak()
    start = time.perf_counter()
    count = sum(len(one) for one in lines().batches())
print(count / (time.perf_counter() - start), count, peak() - before)
"""
PSYCOPG2 = """
import sys, time, psycopg2
connection = psycopg2.connect(sys.argv[1])
cursor = connection.cursor("rows")
cursor.itersize = 10_000
start = time.perf_counter()
cursor.execute("SELECT extract(epoch FROM timestamp)::float8, stream_id, line FROM logs"
               " ORDER BY place, arrival")
count = sum(1 for _ in cursor)
print(count / (time.perf_counter() - start), count, 0)
"""


class Bench:
    """One live server with many nodes, one of which logged a lot."""

    def __init__(self, reactor: Any) -> None:
        self.platform = LivePlatform(reactor, net="192.168.0", prefix=19)
        self.load = Load(self.platform)
        self.dsn = f"host={self.platform.runtime}/postgres dbname=walt user=root"

    async def start(self) -> None:
        """Start the server; register the nodes; store the lines."""
        await self.platform.import_image()
        await self.platform.start()
        await self.load.register(range(1, NODES + 1))
        with psycopg2.connect(self.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO logstreams (issuer_mac, name, mode)"
                " SELECT mac, 'bench', 'line' FROM devices WHERE type = 'node'"
                " ORDER BY mac LIMIT 50"
            )
            cursor.execute(
                "INSERT INTO logs (stream_id, timestamp, place, arrival, line)"
                " SELECT (ids.all)[1 + n %% 50], moment, moment, n, 'line ' || n || repeat('x', 85)"
                " FROM generate_series(1, %s) n,"
                " LATERAL (SELECT now() - n * interval '100 microseconds' AS moment) AS times,"
                " (SELECT array_agg(id) AS all FROM logstreams WHERE name = 'bench') AS ids",
                (LINES,),
            )
        connection.close()
        # No file system for each node, which the server would mount again while lines are read.
        await self.load.database.execute(
            """UPDATE devices SET conf = conf || '{"mount.persist": false}' WHERE type = 'node'"""
        )
        await self.load.database.execute("ANALYZE logs")
        await self.platform.stop()  # what the server knows of streams is what it reads at start
        await self.platform.start()

    async def python(self, text: str, *words: str) -> list[list[str]]:
        """Run a script; return the words of each line that it prints."""
        result = await self.platform.runner.run(
            [sys.executable, "-c", text, *words], timeout=300,
            env={**os.environ, **self.platform.environment()},
        )
        return [line.split() for line in result.stdout.decode().splitlines()]

    async def calls(self) -> None:
        """Print what import and first call take beside the walt command; counts of calls."""
        environment = {**os.environ, **self.platform.environment(), "PYTHONPATH": str(ROOT)}
        await self.platform.ok("image", "show")  # a new user gets copies of default images
        ratios = []
        for _ in range(3):
            script = wall_times([sys.executable, "-c", FIRST], environment)
            command = wall_times(walt_command("image", "show", "--names-only"), environment)
            ratios.append(script / command)
            figure("import and first call", script, "ms")
            figure("  the same by walt image show --names-only", command, "ms")
        figure("  ratio", sorted(ratios)[1], "", 1.3)
        ((spent, count),) = (await self.python(FILTER))
        assert int(count) == NODES, count
        figure(f"{NODES} nodes listed and filtered", float(spent) * 1000, "ms", 100)
        for name, number in await self.python(CALLS):
            figure(f"calls of {name}", float(number), "", 1)

    async def logs(self) -> None:
        """Print the rates of get_logs, beside psycopg2."""
        for _ in range(2):
            rates = {}
            for name, text, words in (
                ("psycopg2", PSYCOPG2, self.dsn), ("rows", LOGS, "rows"), ("arrow", LOGS, "arrow"),
            ):
                ((rate, count, more),) = await self.python(text, words)
                assert int(count) >= LINES, count
                rates[name] = float(rate)
                figure(f"{LINES} lines: {name}", rates[name], "lines/s")
                if name != "psycopg2":
                    figure("  ratio to psycopg2", rates[name] / rates["psycopg2"], "")
                    figure("  memory of the client, more than before", float(more), "MiB")
            await self.platform.sleep(1)
        start = time.perf_counter()
        await self.python("from walt.client import api\n"
                          "next(api.logs.get_logs(history='full', issuers='all-nodes'))")
        figure("first line, the interpreter included", (time.perf_counter() - start) * 1000, "ms")


async def main(reactor: Any) -> None:
    """Print the figures."""
    bench = Bench(reactor)
    try:
        await bench.start()
        for name in sys.argv[1:] or ["calls", "logs"]:
            await getattr(bench, name)()
    finally:
        bench.load.database.close()
        await bench.platform.close()


if __name__ == "__main__":
    run_bench(main)
