"""Run with `python -m bench.transfers`, as root: `walt node cp` against ssh alone, same run."""

from __future__ import annotations

import json
import os
import time
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred

from bench.shells import start_shells, stop_shells
from bench.simulator import Fleet
from tests.system.live import LivePlatform
from tests.system.load import Load, figure, run_bench
from walt.server.adapters.ssh.keys import node_key
from walt.server.adapters.ssh.options import node_options
from walt.server.domain.transfers import probe_script

SIZE = 200 << 20
ROUNDS = 3
CHECKS = 20


class Bench:
    """One simulated node, whose files are those of this machine."""

    def __init__(self, platform: LivePlatform, fleet: Fleet) -> None:
        self.platform = platform
        self.fleet = fleet
        self.load = Load(platform)
        self.source = platform.base / "source"
        self.target = platform.base / "target"
        with open(self.source, "wb") as stream:
            for _ in range(SIZE >> 20):
                stream.write(os.urandom(1 << 20))
        self.peak = 0.0

    def _ssh(self) -> list[str]:
        options = node_options(
            self.platform.state / "ssh" / "known_hosts.nodes", node_key(self.platform.state)
        )
        return ["nsenter", f"--net=/run/netns/{self.platform.namespace}", "--", "ssh", *options,
                f"root@{self.fleet.nodes[0].ip}"]

    async def checks(self, name: str) -> tuple[float, float, float]:
        """Return milliseconds of a check of a path: the first, later ones, by ssh alone."""
        client = await self.load.connect()
        await client.call("hello", program="bench", version="1", protocol="1", username="alice")
        asked, fresh = [], []
        for _ in range(CHECKS):
            start = time.monotonic()
            await client.call("cs.nodes.path_kinds", node=name, path="/etc/passwd")
            asked.append(time.monotonic() - start)
            start = time.monotonic()
            await self.platform.runner.run([*self._ssh(), "--", probe_script("/etc/passwd")])
            fresh.append(time.monotonic() - start)
        Load.close(client)
        return asked[0] * 1000, median(asked[1:]) * 1000, median(fresh) * 1000

    async def ssh(self, direction: str) -> float:
        """Return the MB/s of `ssh node cat`."""
        ssh = self._ssh()
        if direction == "from":
            script, remote = 'target="$2"; shift 2; exec "$@" > "$target"', f"cat {self.source}"
        else:
            script, remote = 'source="$1"; shift 2; exec "$@" < "$source"', f"cat > {self.target}"
        return await self.timed(
            ["sh", "-c", script, "sh", str(self.source), str(self.target), *ssh, "--", remote]
        )

    async def timed(self, argv: list[str]) -> float:
        """Return the MB/s of a program."""
        start = time.monotonic()
        await self.platform.runner.run(argv, timeout=120)
        spent = time.monotonic() - start
        assert self.target.stat().st_size == SIZE
        self.target.unlink()
        return SIZE / 1e6 / spent

    async def walt(self, name: str, direction: str) -> float:
        """Return the MB/s of `walt node cp`, and keep the memory of the server meanwhile."""
        operands = (
            [f"{name}:{self.source}", str(self.target)] if direction == "from"
            else [str(self.source), f"{name}:{self.target}"]
        )
        start = time.monotonic()
        running = Deferred.fromCoroutine(self.platform.ok("node", "cp", *operands))
        while not running.called:
            self.peak = max(self.peak, self.load.memory())
            await self.platform.sleep(0.2)
        await running
        spent = time.monotonic() - start
        assert self.target.stat().st_size == SIZE
        self.target.unlink()
        return SIZE / 1e6 / spent


async def main(reactor: Any) -> None:
    """Print the figures."""
    platform = LivePlatform(reactor)
    fleet = Fleet(platform, 1)
    shells = []
    try:
        await platform.import_image()
        await platform.start()
        await fleet.start()
        await platform.ok("node", "wait", "--timeout", "60", "all-nodes")
        shells = await start_shells(platform, fleet, fleet.nodes)
        tables = json.loads(await platform.ok("node", "show", "--all", "--json"))
        name = tables["free"][0]["name"]
        bench = Bench(platform, fleet)
        first, kept, fresh = await bench.checks(name)
        figure("check of a path, the first: opens the shell", first, "ms")
        figure("check of a path, by the shell that stays open", kept, "ms")
        figure("check of a path, by a fresh ssh alone", fresh, "ms")
        figure("  ratio (at most 0.2)", kept / fresh, "")
        await bench.walt(name, "from")
        before = bench.load.memory()
        bench.peak = before
        for direction in ("from", "to"):
            alone = max([await bench.ssh(direction) for _ in range(ROUNDS)])
            ours = max([await bench.walt(name, direction) for _ in range(ROUNDS)])
            figure(f"ssh node cat, {direction} the node", alone, "MB/s")
            figure(f"walt node cp, {direction} the node", ours, "MB/s")
            figure("  ratio (at least 0.6)", ours / alone, "")
        figure("memory of the server, more than before", bench.peak - before, "MiB", 4)
        bench.load.database.close()
    finally:
        await stop_shells(platform, shells)
        await fleet.stop()
        await platform.close()


if __name__ == "__main__":
    run_bench(main)
