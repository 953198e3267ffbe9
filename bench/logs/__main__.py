"""Run with `python -m bench.logs [PART...]`, as root: log lines in and out, against COPY in the
same run. Parts: ingest (the others need it), retrieve, latency, disturbed, window, archived.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psycopg2

from bench.logs.disturbed import Disturbed
from bench.logs.reader import Reader
from tests.system.live import ROOT, LivePlatform
from tests.system.load import Load, add_senders, figure, run_bench

LINES = 1_000_000
SENDERS = 50
RATE = 20_000  # lines a second
PERIOD = 5  # seconds
MANY = 10_000_000
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def postgres_cpu(directory: str) -> float:
    """Return the CPU seconds of the PostgreSQL processes whose socket is in a directory."""
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            parent = (process / "stat").read_text().rsplit(")", 1)[1].split()[1]
            above = Path(f"/proc/{parent}/cmdline").read_bytes()
        except OSError:
            continue
        if directory.encode() in command or (
            command.startswith(b"postgres:") and directory.encode() in above
        ):
            total += cpu(int(process.name))
    return total


def copy_rate(dsn: str) -> float:
    """Return the lines a second of COPY into a table of the same shape, indexes included."""
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE copied (LIKE logs) PARTITION BY RANGE (timestamp)")
        cursor.execute("CREATE INDEX ON copied (place, arrival)")
        cursor.execute("CREATE INDEX ON copied (stream_id, place)")
        cursor.execute("CREATE INDEX ON copied (timestamp) WHERE place > timestamp")
        cursor.execute(
            "CREATE TABLE copied_now PARTITION OF copied FOR VALUES FROM (now() - interval '1 day')"
            " TO (now() + interval '7 days')"
        )
        connection.commit()
        spent = 0.0
        for first in range(0, LINES, 100_000):
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            data = io.StringIO("".join([
                f"{number % SENDERS}\t{stamp}.{number % 1000:03d}\t"
                + f"{number:08d} ".ljust(99, "x") + f"\t{stamp}.{number % 1000:03d}\t{number}\n"
                for number in range(first, first + 100_000)
            ]))
            start = time.perf_counter()
            cursor.copy_expert("COPY copied FROM STDIN", data)
            connection.commit()
            spent += time.perf_counter() - start
        cursor.execute("DROP TABLE copied")
    connection.close()
    return LINES / spent


class Bench:
    """One live server with devices that send lines."""

    def __init__(self, reactor: Any) -> None:
        self.platform = LivePlatform(reactor)
        self.load = Load(self.platform)
        self.dsn = f"host={self.platform.runtime}/postgres dbname=walt user=root"
        self.inside = ["nsenter", f"--net=/run/netns/{self.platform.namespace}", "--"]
        self.addresses = [f"{self.platform.net}.{100 + number}" for number in range(SENDERS)]

    async def start(self) -> None:
        """Start the server, and give its namespace the addresses of the senders."""
        await self.platform.import_image()
        await self.platform.start()
        await add_senders(self.platform, self.addresses)

    async def send(self, mode: str, senders: int) -> float:
        """Send the lines; return lines a second until all are in the table, whole and once."""
        await self.load.database.execute("TRUNCATE logs")
        result = await self.platform.runner.run(
            [*self.inside, sys.executable, "-m", "bench.logs.sender", f"{self.platform.net}.1",
             mode, str(LINES), *self.addresses[:senders]],
            env={"PYTHONPATH": str(ROOT)}, timeout=300,
        )
        start, end = (float(word) for word in result.stdout.split())
        rows = await self.load.database.query(
            "SELECT count(*), count(DISTINCT line), min(length(line)), max(length(line))"
            " FROM logs l JOIN logstreams s ON s.id = l.stream_id WHERE s.name = 'bench'"
        )
        expected = LINES // senders * senders
        assert rows[0] == (expected, expected, 99, 99), rows
        return expected / (end - start)

    async def ingest(self) -> None:
        """Print the rates of ingestion, and where CPU goes."""
        copied = copy_rate(self.dsn)
        figure("COPY by psycopg2, same shape and indexes", copied, "lines/s")
        for mode in ("NO_TIMESTAMPS", "TIMESTAMPS_INSIDE"):
            for senders in (1, 10, SENDERS):
                server, database = cpu(self.platform.pid), postgres_cpu(str(self.platform.base))
                rate = await self.send(mode, senders)
                figure(f"{senders} senders, {mode}", rate, "lines/s")
                figure("  ratio to COPY (at least 0.45)", rate / copied, "")
                million = LINES / 1e6
                figure("  CPU of the server, per million lines",
                       (cpu(self.platform.pid) - server) / million, "s")
                figure("  CPU of PostgreSQL, per million lines",
                       (postgres_cpu(str(self.platform.base)) - database) / million, "s")
        figure("memory of the server (PSS)", self.load.memory(), "MiB", 200)

    async def latency(self) -> None:
        """Print how long a line takes from its sender to a live reader, at 20,000 lines/s."""
        reader = await Reader.of(self.platform, "bench")
        await self.platform.runner.run(
            [*self.inside, sys.executable, "-m", "bench.logs.paced", f"{self.platform.net}.1",
             str(RATE), str(PERIOD), *self.addresses[:10]],
            env={"PYTHONPATH": str(ROOT)}, timeout=60,
        )
        await self.platform.sleep(1)
        ages = await reader.end()
        assert len(ages) == RATE * PERIOD, len(ages)
        figure(f"line sent to shown, {RATE} lines/s: median", ages[len(ages) // 2] * 1000, "ms", 50)
        figure("  99 %", ages[len(ages) * 99 // 100] * 1000, "ms", 250)

    async def window(self) -> None:
        """Print when the first line of 10 s among ten million is there."""
        await self.load.database.execute("TRUNCATE logs")
        with psycopg2.connect(self.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO logs (stream_id, timestamp, place, arrival, line)"
                " SELECT (SELECT min(id) FROM logstreams WHERE name = 'bench'),"
                " moment, moment, n, 'line ' || n || repeat('x', 85) FROM generate_series(1, %s) n,"
                " LATERAL (SELECT now() - n * interval '100 microseconds' AS moment) AS times",
                (MANY,),
            )
        connection.close()
        figure(f"first line of a window of 10 s among {MANY}",
               await self.first_line("-510s:-500s"), "ms", 200)

    async def first_line(self, history: str) -> float:
        """Return when the first line of a range is there, in milliseconds: the median of five."""
        argv = [
            sys.executable, "-m", "walt.client.main", "log", "show", "--history", history,
            "--issuers", "all-nodes", "--streams", "^bench$",
        ]
        spent = []
        for _ in range(5):
            start = time.perf_counter()
            result = await self.platform.runner.run(
                ["sh", "-c", '"$@" | head -n 1', "sh", *argv],
                env={**os.environ, **self.platform.environment()},
            )
            spent.append(time.perf_counter() - start)
            assert b"line" in result.stdout
        return sorted(spent)[2] * 1000

    async def archived(self) -> None:
        """Print how fast ten million old lines become files; then the first line of a window."""
        days, archive = 40, self.platform.base / "archive"
        archive.mkdir()
        with psycopg2.connect(self.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT ensure_log_partition(now() - %s * interval '1 day'),"
                " ensure_log_partition(now() - %s * interval '1 day' - interval '1000 s')",
                (days, days),
            )
            cursor.execute(
                "INSERT INTO logstreams (issuer_mac, name) SELECT min(mac), 'bench' FROM devices"
                " WHERE type = 'node' ON CONFLICT DO NOTHING"
            )
            cursor.execute(
                "INSERT INTO logs (stream_id, timestamp, place, arrival, line)"
                " SELECT (SELECT min(id) FROM logstreams WHERE name = 'bench'),"
                " moment, moment, n, 'line ' || n || repeat('x', 85) FROM generate_series(1, %s) n,"
                " LATERAL (SELECT now() - %s * interval '1 day' - n * interval '100 microseconds'"
                " AS moment) AS times",
                (MANY, days),
            )
        connection.close()
        await self.platform.stop(signal.SIGUSR2)
        self.platform.write_config(f"logs:\n  archive:\n    to: {archive}\n    after: 3\n")
        await self.platform.start()
        start = time.perf_counter()

        async def moved() -> bool:
            rows = await self.load.database.query("SELECT sum(lines) FROM logarchives")
            return rows[0][0] == MANY

        await self.platform.until(moved, "the lines are files", 1800)
        figure("lines archived, verified and dropped", MANY / (time.perf_counter() - start),
               "lines/s")
        octets = sum(file.stat().st_size for file in archive.iterdir())
        figure("  octets of the files", octets / 1e6, "MB")
        since = days * 86400 + 500
        figure(f"first line of a window of 10 s among {MANY} archived lines",
               await self.first_line(f"-{since + 10}s:-{since}s"), "ms")
        figure("memory of the server, with a worker that archived (PSS)", self.load.memory(), "MiB")

    async def disturbed(self) -> None:
        """Print what other things do to ingestion."""
        disturbance = Disturbed(self.platform, self.load, self.dsn, self.inside, self.addresses)
        await disturbance.flood()
        await disturbance.forget()

    async def retrieve(self) -> None:
        """Print the rates of retrieval of the lines just stored."""
        out = f"{self.platform.base}/out"
        environment = {**os.environ, **self.platform.environment()}
        for words in ((), ("--json",)):
            argv = [sys.executable, "-m", "walt.client.main", "log", "show", "--history", "full",
                    "--issuers", "all-nodes", "--streams", "^bench$", *words]
            before = cpu(self.platform.pid)
            start = time.perf_counter()
            await self.platform.runner.run(
                ["sh", "-c", 'out="$1"; shift; exec "$@" > "$out"', "sh", out, *argv],
                env=environment, timeout=300,
            )
            spent = time.perf_counter() - start
            with open(out, "rb") as stream:
                count = sum(1 for _ in stream)
            assert count == LINES, count
            figure(f"walt log show --history full {' '.join(words)}: to a file", LINES / spent,
                   "lines/s")
            figure("  CPU of the server, per million lines", cpu(self.platform.pid) - before, "s")
        figure("memory of the server (PSS)", self.load.memory(), "MiB", 200)


async def main(reactor: Any) -> None:
    """Print the figures."""
    bench = Bench(reactor)
    try:
        await bench.start()
        wanted = sys.argv[1:] or [
            "ingest", "retrieve", "latency", "disturbed", "window", "archived"
        ]
        for name in wanted:
            await getattr(bench, name)()
    finally:
        bench.load.database.close()
        await bench.platform.close()


if __name__ == "__main__":
    run_bench(main)
