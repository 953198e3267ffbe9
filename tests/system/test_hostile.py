"""Hostile peers against a live server: floods, crowds, half-said things. It goes on serving."""

from __future__ import annotations

import re
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, why_not
from tests.system.load import Load
from walt.server.wire.connections import DOORS, Kind

# A crowd from many addresses of the loopback, most of it silent; prints what became of it.
CROWD = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (12000, 12000))
kept, refused = [], 0
starts = (b"", b"\\0", b"\\x16\\x03\\x01", b"10\\n", b"REQ_", b"0\\nname\\n", b"GET / HTTP/1.1\\n")
for number in range(10000):
    port = (12345, 12347)[number % 2]
    one = socket.socket()
    one.settimeout(5)
    try:
        one.bind((f"127.0.1.{number // 550 + 1}", 0))
        one.connect(("127.0.0.1", port))
        one.sendall(starts[number % len(starts)])
    except OSError:
        refused += 1
    kept.append(one)
print("open", flush=True)
sys.stdin.readline()
gone = 0
for one in kept:
    one.setblocking(False)
    try:
        gone += one.recv(1) == b""
    except BlockingIOError:
        pass
    except OSError:
        gone += 1
print("gone", gone + refused, flush=True)
"""
# Calls of no command, boxes of nothing, datagrams of anything, from inside walt-net.
FLOOD = """
import os, random, socket, sys
sys.path.insert(0, sys.argv[2])
from walt.common import ampbox
server = sys.argv[1]
def talk(data):
    one = socket.create_connection((server, 12345), 5)
    one.settimeout(5)
    try:
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        while one.recv(65536):
            pass
    except OSError:
        pass
    one.close()
unknown = b"".join(
    ampbox.encode({b"_ask": b"%x" % n, b"_command": b"no.such.%d" % n}) for n in range(5000)
)
denied = ampbox.encode({b"_ask": b"1", b"_command": b"ss.access.show"}) * 2000
random.seed(7)
for data in (
    unknown, denied, ampbox.encode({b"_command": b"ns.clock.sync"}) * 300, b"\\0\\0" * 50000,
    b"\\0\\5abcde" + b"\\xff\\xff" * 40000, ampbox.encode({b"_answer": b"1"}) * 1000,
    b"10\\nNSAPI\\n" + b"('API_CALL', 'sync_clock', (), {})\\n" * 200,
    b"10\\nNSAPI\\n" + b"(" * 50000, b"10\\nSSAPI\\n('API_CALL', 'register_device', (), {})\\n",
    b"\\x16" + random.randbytes(20000),
    *(b"\\x16\\x03\\x01" + random.randbytes(300) for _ in range(50)), *([b"A" * 100000] * 20),
):
    talk(data)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(20000):
    datagrams.sendto(random.randbytes(number % 400), (server, 12342))
dhcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(2000):
    dhcp.sendto(random.randbytes(number % 600), (server, 67))
tftp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for path in (b"../../etc/passwd", b"/etc/passwd", b"", b"x" * 500, b"a\\0b"):
    for code in (b"\\0\\1", b"\\0\\2", b"\\0\\7"):
        tftp.sendto(code + path + b"\\0octet\\0blksize\\0999999999\\0", (server, 69))
print("done", flush=True)
"""


class Crowd(ProcessProtocol):
    """The process of the crowd."""

    def __init__(self) -> None:
        self.out = b""
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)

    def leave(self) -> Deferred[None] | None:
        """Have it tell what became of it, and end."""
        if self.ended.called:
            return None
        self.transport.write(b"\n")
        return self.ended


class HostileTests(TestCase):
    skip = why_not()
    timeout = patient(240)

    async def test_live_server(self) -> None:
        """Crowds and floods are bounded, refused and forgotten; friends do not notice."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        platform.expects("CrowdedTurn: ")  # thousands of sockets at once: each gets its moment
        load = Load(platform)
        self.addCleanup(platform.close)
        self.addCleanup(load.database.close)
        await platform.start()
        inside = ["nsenter", f"--net=/run/netns/{platform.namespace}", "--", sys.executable]
        crowd = await self.crowd(platform, load, inside)
        done = await platform.runner.run(
            [*inside, "-c", FLOOD, f"{platform.net}.1", str(ROOT)], timeout=100
        )
        self.assertEqual(done.stdout, b"done\n")
        await self.forgotten(platform, inside, crowd)
        services = await platform.services()
        self.assertEqual({row["status"] for row in services.values()}, {None}, services)
        self.assertEqual({row["restarts"] for row in services.values()}, {0}, services)
        text = platform.log.read_text(errors="replace")
        # A flood of calls does not make a flood of log lines.
        self.assertLess(len(text), 2_000_000)

    async def crowd(self, platform: LivePlatform, load: Load, inside: list[str]) -> Crowd:
        """10,000 connections from 19 addresses: each address has its limit."""
        before = load.memory()
        crowd = Crowd()
        argv = [*inside, "-c", CROWD]
        platform.reactor.spawnProcess(crowd, argv[0], argv, {})
        self.addCleanup(crowd.leave)

        async def is_open() -> bool:
            return b"open" in crowd.out

        await platform.until(is_open, "the crowd is there", 60)
        await platform.ok("node", "show", "--all")
        metrics = await self.metrics(platform, inside)
        addresses, share = 10000 // 550 + 1, DOORS.shares[Kind.ELSEWHERE]
        most = min(addresses * share.each, share.together)
        self.assertLessEqual(metrics["walt_connections"], most + 20)
        self.assertGreater(metrics["walt_connections_refused"], 50)
        per_connection = (load.memory() - before) * 1024 / metrics["walt_connections"]
        self.assertLess(per_connection, 30)  # KiB
        return crowd

    async def forgotten(self, platform: LivePlatform, inside: list[str], crowd: Crowd) -> None:
        """Those who do not say what they want within 30 s are closed."""

        async def closed() -> bool:
            return (await self.metrics(platform, inside))["walt_connections"] <= 2

        await platform.until(closed, "the crowd is forgotten", 60)
        crowd.leave()
        await crowd.ended
        gone = re.search(rb"gone (\d+)", crowd.out)
        assert gone is not None
        self.assertEqual(int(gone[1]), 10000)

    async def metrics(self, platform: LivePlatform, inside: list[str]) -> dict[str, float]:
        """Return the values without labels."""
        script = (
            "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
        )
        done = await platform.runner.run([*inside, "-c", script, "http://127.0.0.1/metrics"])
        return {
            line.split()[0]: float(line.split()[1])
            for line in done.stdout.decode().splitlines() if line.startswith("walt_")
            and "{" not in line
        }
