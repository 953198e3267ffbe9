"""Run with `python -m bench.connections`, as root: memory of connections that wait."""

from __future__ import annotations

import re
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from tests.system.live import ROOT, LivePlatform
from tests.system.load import Load, add_senders, figure, run_bench

NODES = 1000
CLIENTS = 200
LIMIT = 30.0  # KiB for a connection
ADDRESSES = [f"192.168.181.{number}" for number in range(101, 105)]

NOTIFY = """
import socket, sys
kept = []
for number in range(int(sys.argv[2])):
    one = socket.create_connection(
        (sys.argv[1], 12347), source_address=(sys.argv[3 + number % 4], 0))
    one.sendall(b"REQ_NOTIFY_BOOTUP_STATUS\\n\\n")
    assert one.recv(3) == b"OK\\n"
    kept.append(one)
print("ready", flush=True)
sys.stdin.read()
"""
LOCAL = """
import sys
from walt.client.session import Session
kept = [Session() for _ in range(int(sys.argv[1]))]
print("ready", flush=True)
sys.stdin.read()
"""


class Peers(ProcessProtocol):
    """A process that opens connections, tells when they are there, and waits."""

    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        if not self.ready.called:
            self.ready.callback(None)

    def errReceived(self, data: bytes) -> None:
        sys.stderr.buffer.write(data)

    def processEnded(self, reason: Any) -> None:
        if not self.ready.called:
            self.ready.errback(reason)
        self.ended.callback(None)


async def measured(
    platform: LivePlatform, load: Load, name: str, count: int, *words: str, **environment: str
) -> None:
    """Open connections with a program and print what each costs the server."""
    before, peers = load.memory(), Peers()
    argv = [
        "nsenter", f"--net=/run/netns/{platform.namespace}", "--", sys.executable, "-c", *words,
    ]
    platform.reactor.spawnProcess(
        peers, argv[0], argv, {"PYTHONPATH": str(ROOT), **environment}
    )
    await peers.ready
    await platform.sleep(1)
    figure(f"{count} {name}, each", (load.memory() - before) * 1024 / count, "KiB", LIMIT)
    peers.transport.closeStdin()  # type: ignore[union-attr]
    await peers.ended
    await platform.sleep(1)


async def main(reactor: Any) -> None:
    """Print the figures."""
    platform = LivePlatform(reactor)
    load = Load(platform)
    server = f"{platform.net}.1"
    try:
        await platform.import_image()
        await platform.start()
        await add_senders(platform, ADDRESSES, "02:00:00:00:02")
        token = re.search(
            r"enrol \S+ (\S+)\n", await platform.ok("advanced", "add-user", "alice")
        )
        assert token is not None
        home = {"HOME": str(platform.base), "WALT_SERVER": server}
        await platform.runner.run(
            ["nsenter", f"--net=/run/netns/{platform.namespace}", "--", sys.executable, "-m",
             "walt.client.main", "advanced", "enrol", server, token[1]],
            env={"PYTHONPATH": str(ROOT), **home},
        )
        await measured(
            platform, load, "notification connections of nodes", NODES, NOTIFY, server,
            str(NODES), *ADDRESSES,
        )
        await measured(
            platform, load, "clients on the unix socket", CLIENTS, LOCAL, str(CLIENTS),
            **platform.environment(),
        )
        await measured(
            platform, load, "clients over TLS", CLIENTS - 10, LOCAL, str(CLIENTS - 10), **home
        )
    finally:
        load.database.close()
        await platform.close()


if __name__ == "__main__":
    run_bench(main)
