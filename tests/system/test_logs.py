"""Log lines through a live server and its database: none lost, none doubled, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, Program, why_not
from tests.system.load import Load
from walt.common.errors import Unavailable

ADDRESSES = [f"192.168.181.{number}" for number in range(101, 106)]
SEND = """
import socket, sys, time
server, address, count, rate, close = sys.argv[1:6]
one = socket.create_connection((server, 12347), source_address=(address, 0))
one.sendall(b"0\\nexp\\nTIMESTAMPS_INSIDE\\n")
for first in range(0, int(count), 100):
    one.sendall("".join(
        "%.6f %s %d\\n" % (time.time(), address, number) for number in range(first, first + 100)
    ).encode())
    if float(rate):
        time.sleep(100 / float(rate))
if close == "close":
    one.sendall(b"CLOSE\\n")
    assert one.recv(1) == b""
    print("closed")
else:
    print("sent", flush=True)
    sys.stdin.read()
"""


class LogFaultTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def start(self) -> LivePlatform:
        """Start a server that knows the devices at ADDRESSES, which are in its namespace."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        self.load = Load(platform)
        self.addCleanup(self.load.database.close)
        self.platform = platform
        await platform.import_image()
        await self.restart()
        for number, address in enumerate(ADDRESSES):
            await platform.event(
                "commit", "", "walt.node.pc-x86-64", address, f"02:00:00:00:02:{number:02x}",
                f"sender{number}", "0", "unknown",
            )
        return platform

    async def restart(self) -> None:
        await self.platform.start()
        batch = "".join(f"address replace {one}/24 dev walt-net\n" for one in ADDRESSES)
        await self.platform.runner.run([*self.inside(), "ip", "-batch", "-"], stdin=batch.encode())

    def inside(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.platform.namespace}", "--"]

    def sender(self, address: str, count: int, rate: float = 0, close: bool = True) -> Any:
        """Start a node that sends `count` lines, `rate` a second (0: as fast as it can)."""
        sender: Any = Program()
        argv = [*self.inside(), sys.executable, "-c", SEND, f"{self.platform.net}.1", address,
                str(count), str(rate), "close" if close else "stay"]
        self.platform.reactor.spawnProcess(sender, argv[0], argv, {"PATH": os.environ["PATH"]})
        return sender

    async def numbers(self, address: str) -> list[int]:
        """Return the numbers of the stored lines of a sender, sorted."""
        rows = await self.load.database.query(
            "SELECT line FROM logs WHERE line LIKE %s", (f"{address} %",)
        )
        return sorted(int(line.split()[1]) for (line,) in rows)

    async def until(self, condition: Any, what: str) -> None:
        async def check() -> bool:
            return bool(condition())

        await self.platform.until(check, what, 60)

    async def test_database_killed(self) -> None:
        """Senders wait; what a clean CLOSE acknowledged is there, once."""
        platform = await self.start()
        senders = [self.sender(address, 40_000, 20_000) for address in ADDRESSES]
        for turn in (1, 2, 3):
            # Some of the lines are stored, most are not.
            await self.stored(turn * 2_000 * len(ADDRESSES))
            self.assertFalse(all(one.ended.called for one in senders))
            os.kill(await self._database(), signal.SIGKILL)
        await gatherResults([one.ended for one in senders])
        for sender, address in zip(senders, ADDRESSES, strict=True):
            self.assertEqual((sender.out, sender.err), (b"closed\n", b""))
            found = await self.numbers(address)
            if found != list(range(40_000)):
                what = f"{address}: {len(found)} lines, {len(set(found))} of them distinct"
                raise AssertionError(f"{platform.last_log()}\n{what}")

        # Orderly stop right after the last line: what was read is stored.
        lasting = self.sender(ADDRESSES[0], 50_000, close=False)
        await self.until(lambda: b"sent" in lasting.out, "all is sent")
        await self._read(platform)
        self.assertEqual(await platform.stop(), 0)
        lasting.transport.closeStdin()
        await lasting.ended
        await self.restart()
        stored = await self.numbers(ADDRESSES[0])
        self.assertEqual(len(stored), 90_000)
        self.assertEqual(sorted(set(stored)), list(range(50_000)))

        # A killed server loses the last moments at most.
        killed = self.sender(ADDRESSES[1], 1_000_000, 2000, close=False)
        before = len(await self.numbers(ADDRESSES[1]))
        self.assertEqual(before, 40_000)
        seen = await self.stored(2_000, ADDRESSES[1], above=before)
        self.assertEqual(await platform.stop(signal.SIGKILL), -1)
        killed.transport.signalProcess("KILL")
        await killed.ended
        await self.restart()
        more = Counter(await self.numbers(ADDRESSES[1])) - Counter(range(40_000))
        self.assertEqual(sorted(more.elements()), list(range(more.total())))
        self.assertGreaterEqual(more.total(), seen)

    async def stored(self, wanted: int, address: str = "", above: int = 0) -> int:
        """Wait until so many lines are stored; return how many are."""
        sender = address or self.platform.net

        async def enough() -> int:
            try:
                rows = await self.load.database.query(
                    "SELECT count(*) FROM logs WHERE line LIKE %s", (f"{sender}%",)
                )
            except Unavailable:
                return 0  # the database was killed a moment ago
            count = int(rows[0][0]) - above
            return count if count >= wanted else 0

        return int(await self.platform.until(enough, f"{wanted} lines are stored"))

    async def _database(self) -> int:
        """Return the process of PostgreSQL, when it runs (again)."""
        async def found() -> int | None:
            return self._running_database()

        return int(await self.platform.until(found, "the database runs"))

    def _running_database(self) -> int | None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"/postgres") and any(
                str(self.platform.base).encode() in word for word in words
            ):
                return int(process.name)
        return None

    async def _read(self, platform: LivePlatform) -> None:
        """Wait until the server has read every byte that its sockets received."""

        async def empty() -> bool:
            found = await platform.runner.run([*self.inside(), "ss", "-Htn", "sport", "=", "12347"])
            return all(line.split()[1] == b"0" for line in found.stdout.splitlines())

        await platform.until(empty, "the server read all", 30)

    async def test_odd_senders_and_readers(self) -> None:
        """Huge and binary lines, idle connections, a reader that stops reading."""
        platform = await self.start()
        await self.check_junction()
        script = (
            "import socket,sys\n"
            "one = socket.create_connection((sys.argv[1], 12347),"
            " source_address=(sys.argv[2], 0))\n"
            "long = socket.create_connection((sys.argv[1], 12347),"
            " source_address=(sys.argv[2], 0))\n"
            # A name that no index of PostgreSQL would take keeps nobody from being stored.
            "name = ''.join(map(chr, range(0x10000, 0x103e0)))\n"
            "long.sendall(('0\\n' + name + '\\nNO_TIMESTAMPS\\nlong\\nCLOSE\\n').encode())\n"
            "assert long.recv(1) == b''\n"
            "one.sendall(b'0\\nodd\\nNO_TIMESTAMPS\\n' + b'x' * 10_000_000 + b'\\n'"
            " + bytes(b for b in range(256) if b != 10) + b'\\nCLOSE\\n')\n"
            "assert one.recv(1) == b''\n"
        )
        await platform.runner.run(
            [*self.inside(), sys.executable, "-c", script, f"{platform.net}.1", ADDRESSES[0]]
        )
        shown = await platform.ok(
            "log", "show", "--history", "full", "--issuers", "all-nodes", "--streams", "odd",
            "--json",
        )
        huge, binary = (json.loads(line)["line"] for line in shown.splitlines())
        self.assertEqual(huge, "x" * 10_000_000)
        self.assertTrue(binary.startswith("\\x00\x01\x02"))
        self.assertTrue(binary.endswith("\\xfe\\xff"))
        await self.check_timestamps()
        await self.check_order()

        idle = (
            "import socket,sys,resource\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (5000, 5000))\n"
            "all = []\n"
            "for number in range(2000):\n"
            "    one = socket.create_connection((sys.argv[1], 12347),"
            " source_address=(sys.argv[2 + number % 4], 0))\n"
            "    one.sendall(b'0\\nidle%d\\nNO_TIMESTAMPS\\n' % number)\n"
            "    all.append(one)\n"
            "print('open', flush=True)\n"
            "sys.stdin.read()\n"
        )
        crowd: Any = Program()
        argv = [*self.inside(), sys.executable, "-c", idle, f"{platform.net}.1", *ADDRESSES[:4]]
        platform.reactor.spawnProcess(crowd, argv[0], argv, {"PATH": os.environ["PATH"]})
        await self.until(lambda: b"open" in crowd.out, "2,000 connections are open")
        before = self.load.memory()
        reader: Any = Program()
        platform.reactor.spawnProcess(
            reader, sys.executable,
            [sys.executable, "-m", "walt.client.main", "log", "show", "--realtime", "--issuers",
             "all-nodes", "--streams", "^exp$"],
            {**os.environ, **platform.environment(), "PYTHONPATH": str(ROOT)},
        )

        async def heard() -> bool:
            await self.sender(ADDRESSES[3], 100).ended
            return b"\n" in reader.out

        await platform.until(heard, "the reader hears a node")
        os.kill(reader.transport.pid, signal.SIGSTOP)
        heard_first = reader.out.count(b"\n")
        sender = self.sender(ADDRESSES[4], 200_000)
        await sender.ended
        self.assertEqual(sender.out, b"closed\n")
        self.assertLess(self.load.memory() - before, 64)
        # At once: it has 10 s to take its result.
        os.kill(reader.transport.pid, signal.SIGCONT)
        self.assertEqual(await reader.ended, 1)
        self.assertEqual(await self.numbers(ADDRESSES[4]), list(range(200_000)))
        self.assertIn(b"too slow", reader.err)
        self.assertGreater(reader.out.count(b"\n"), heard_first)  # what it was sent in time
        rows = await self.load.database.query(
            "SELECT count(*) FROM logs WHERE line = '<disconnected!>'"
        )
        self.assertEqual(rows[0][0], 0)
        crowd.transport.closeStdin()
        await crowd.ended

        async def told() -> bool:
            rows = await self.load.database.query(
                "SELECT count(*) FROM logs WHERE line = '<disconnected!>'"
            )
            return bool(rows[0][0] == 2000)

        await platform.until(told, "each of the 2,000 streams ended abruptly", 60)

    async def check_junction(self) -> None:
        """History, then live lines, while they come: each one once, in order."""
        platform = self.platform
        sender = self.sender(ADDRESSES[3], 20_000, 8000)

        async def stored() -> bool:
            return len(await self.numbers(ADDRESSES[3])) > 1000

        await platform.until(stored, "the sender is under way", 30)
        reader: Any = Program()
        platform.reactor.spawnProcess(
            reader, sys.executable,
            [sys.executable, "-m", "walt.client.main", "log", "show", "--history", "full",
             "--realtime", "--issuers", "all-nodes", "--streams", "^exp$", "--format", "{line}"],
            {**os.environ, **platform.environment(), "PYTHONPATH": str(ROOT)},
        )
        await sender.ended
        await self.until(lambda: b" 19999\n" in reader.out, "the last line is shown")
        reader.transport.signalProcess("INT")
        self.assertEqual(await reader.ended, 130)
        shown = [int(line.split()[1]) for line in reader.out.decode().splitlines() if line]
        self.assertEqual(shown, list(range(20_000)))

    async def check_timestamps(self) -> None:
        """Times that are none, or absurd, become that of reception; range and order hold.

        Each line stays where its sender had it, whatever its time.
        """
        platform = self.platform
        start = time.time()
        stamps = [
            str(start - 3600), "nan", "inf", "-inf", "1e400", "5", str(start + 3600), "x",
            str(start - 1800),
        ]
        script = (
            "import socket,sys\n"
            "one = socket.create_connection((sys.argv[1], 12347),"
            " source_address=(sys.argv[2], 0))\n"
            "lines = ''.join(f'{stamp} line {n}\\n' for n, stamp in enumerate(sys.argv[3:]))\n"
            "one.sendall(b'0\\nstamps\\nTIMESTAMPS_INSIDE\\n' + lines.encode() + b'CLOSE\\n')\n"
            "assert one.recv(1) == b''\n"
        )
        await platform.runner.run([
            *self.inside(), sys.executable, "-c", script, f"{platform.net}.1", ADDRESSES[1], *stamps
        ])
        shown = await platform.ok(
            "log", "show", "--history", "full", "--issuers", "all-nodes", "--streams", "stamps",
            "--json",
        )
        records = [json.loads(line) for line in shown.splitlines()]
        self.assertEqual(
            [one["line"].removeprefix("x ") for one in records],
            [f"line {number}" for number in range(len(stamps))],
        )
        first, *found, last = (one["timestamp"] for one in records)
        self.assertAlmostEqual(first, start - 3600, 3)
        self.assertAlmostEqual(last, start - 1800, 3)
        self.assertTrue(all(start - 1 < one < time.time() + 1 for one in found), found)

    async def check_order(self) -> None:
        """Lines that came at once are shown and exported in the order in which they were sent."""
        platform = self.platform
        script = (
            "import socket,sys\n"
            "for stream in range(8):\n"
            "    one = socket.create_connection((sys.argv[1], 12347),"
            " source_address=(sys.argv[2], 0))\n"
            "    lines = [b'%d%s' % (n, b'' if n % 7 else b'x' * 3000) for n in range(3000)]\n"
            "    one.sendall(b'0\\nat-once%d\\nNO_TIMESTAMPS\\n' % stream)\n"
            "    one.sendall(b'\\n'.join(lines) + b'\\nCLOSE\\n')\n"
            "    assert one.recv(1) == b''\n"
        )
        await platform.runner.run(
            [*self.inside(), sys.executable, "-c", script, f"{platform.net}.1", ADDRESSES[2]]
        )
        chosen = ("--history", "full", "--issuers", "all-nodes", "--streams", "^at-once")
        file = platform.base / "exported"
        await platform.ok("log", "export", *chosen, str(file))
        for text in (await platform.ok("log", "show", *chosen, "--json"), file.read_text()):
            numbers: dict[str, list[int]] = {}
            for line in text.splitlines():
                record = json.loads(line)
                numbers.setdefault(record["stream"], []).append(int(record["line"].rstrip("x")))
            self.assertEqual(len(numbers), 8)
            for stream, found in numbers.items():
                self.assertEqual(found, list(range(3000)), stream)
