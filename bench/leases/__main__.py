"""Run with `python -m bench.leases`, as root; needs perfdhcp (Debian package kea-admin)."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from typing import Any

from tests.system.live import LivePlatform
from tests.system.load import Load, figure, run_bench

RATE = 300  # new clients a second
PERIOD = 10  # seconds


async def cable(platform: LivePlatform, clients: str) -> None:
    """Join a namespace of DHCP clients to walt-net."""
    run = platform.runner.run
    await run(["ip", "netns", "add", clients])
    await run([
        "ip", "-n", platform.namespace, "link", "add", "wtbench", "type", "veth",
        "peer", "name", "eth0", "netns", clients,
    ])
    await run([
        "ip", "-n", platform.namespace, "link", "set", "wtbench", "master", "walt-net", "up",
    ])
    await run(["ip", "-n", clients, "link", "set", "eth0", "up"])
    await run(["ip", "-n", clients, "address", "add", "192.168.191.254/20",
               "dev", "eth0"])


def leased(platform: LivePlatform) -> set[str]:
    """Return the MACs in the leases file."""
    text = (platform.state / "services/dhcpd/leases/dhcpd.leases").read_text()
    return set(re.findall(r"hardware ethernet ([0-9a-f:]+);", text))


def reported(text: str, name: str) -> list[float]:
    """Return the figures called `name` in the report of perfdhcp (discoveries, requests)."""
    return [float(text) for text in re.findall(rf"^{name}: ([0-9.]+)", text, re.MULTILINE)]


async def main(reactor: Any) -> None:
    """Print the figures."""
    if shutil.which("perfdhcp") is None:
        print("skipped: perfdhcp is missing; run: apt-get install kea-admin")
        return
    platform = LivePlatform(reactor, net="192.168.176", prefix=20)
    load = Load(platform)
    clients = f"wlc{os.getpid()}"
    turns = platform.base / "turns"
    os.environ["WALT_TURNS"] = str(turns)
    try:
        await platform.start()
        await cable(platform, clients)
        await platform.sleep(6)  # the restarts of the start are over
        before = (await platform.services())["dhcpd"]["restarts"]
        start = time.monotonic()
        result = await platform.runner.run(
            ["ip", "netns", "exec", clients, "perfdhcp", "-4", "-B", "-l", "eth0",
             "-r", str(RATE), "-R", str(RATE * PERIOD * 10), "-p", str(PERIOD), "all"],
            check=False, timeout=60,
        )
        burst = time.monotonic() - start
        during = (await platform.services())["dhcpd"]["restarts"] - before
        text = result.stdout.decode()
        wanted = len(leased(platform))
        while await load.recorded("unknown") < wanted:
            if time.monotonic() - start > 90:
                break
            await platform.sleep(0.02)
        figure("perfdhcp, duration", burst, "s")
        for name in ("sent packets", "received packets", "drops"):
            for exchange, value in zip(
                ("discoveries", "requests"), reported(text, name), strict=False
            ):
                figure(f"  {exchange}, {name}", value, "")
        figure("clients with a lease", wanted, "", RATE * PERIOD)
        figure("devices in the database", await load.recorded("unknown"), "", wanted)
        figure("  all of them, after the end of the burst", time.monotonic() - start - burst, "s")
        figure("restarts of dhcpd during the burst", during, "", 1)
        await platform.sleep(4)
        figure("declared in dhcpd.conf", len(load.hosts()), "", wanted)
        figure(
            "restarts of dhcpd, afterwards",
            (await platform.services())["dhcpd"]["restarts"] - before - during, "",
        )
        longest = json.loads(turns.read_text())
        figure("longest turn of the reactor (CPU)", longest["longest"] * 1000, "ms", 100)
        for spent, stack in longest["long"]:
            print(f"turn of {spent * 1000:.0f} ms:\n{stack}")
    finally:
        load.database.close()
        await platform.runner.run(["ip", "netns", "del", clients], check=False)
        await platform.close()


if __name__ == "__main__":
    run_bench(main)
