"""Run with `python -m bench.registration`, as root, on a machine that runs the system tests."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from tests.system.live import LivePlatform
from tests.system.load import (
    Load,
    bare_interpreter,
    figure,
    mac_of,
    run_bench,
    wall_times,
    walt_command,
)
from walt.server.adapters.postgres.cluster import as_user, binaries
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher


async def everywhere(load: Load, numbers: range, start: float) -> float:
    """Return when all these devices are in the database and in dhcpd.conf."""
    wanted = {mac_of(number) for number in numbers}
    total = numbers.stop - 1
    while not wanted <= load.hosts() or await load.recorded() < total:
        if time.monotonic() - start > 60:
            raise AssertionError("devices are missing after 60 s")
        await load.platform.sleep(0.005)
    return time.monotonic() - start


async def burst(load: Load, numbers: range) -> tuple[float, float]:
    """Register devices; return when all calls were answered, and when all is written."""
    start = time.monotonic()
    await load.register(numbers)
    answered = time.monotonic() - start
    return answered, await everywhere(load, numbers, start)


async def postgres_alone(load: Load) -> float:
    """Return how long PostgreSQL alone takes to start on the same cluster."""
    platform = load.platform
    data, sockets = platform.state / "postgres", platform.runtime / "postgres"
    child = ChildService(load.reactor, Launcher(), ChildSpec(
        "postgres",
        (str(binaries() / "postgres"), "-D", str(data), "-k", str(sockets),
         "-c", "listen_addresses=", "-c", "shared_buffers=64MB"),
        cwd="/", credentials=as_user(), stop_signals=(("INT", 30.0), ("KILL", 5.0)),
    ))
    start = time.monotonic()
    child.startService()
    await load.recorded()
    took = time.monotonic() - start
    load.database.close()
    await child.stopService()
    return took


def show_time(platform: LivePlatform) -> float:
    """Return the median wall time of `walt node show --all`, in ms."""
    return wall_times(walt_command("node", "show", "--all"), platform.environment())


async def starts(load: Load, count: int) -> None:
    """Measure three starts with `count` nodes, and the memory after the last one."""
    alone, whole = [], []
    for number in range(3):
        alone.append(await postgres_alone(load))
        whole.append(await load.started())
        if number < 2:
            load.database.close()
            await load.platform.stop()
    database = statistics.median(alone)
    figure(f"PostgreSQL alone, start, {count} nodes", database, "s")
    figure(f"server, start to ready, {count} nodes", statistics.median(whole), "s")
    rest = statistics.median(whole) - database
    figure(f"  besides PostgreSQL's own start, {count} nodes", rest, "s", 1.5)
    await load.platform.sleep(40)  # idle workers end after 30 s
    figure(
        f"memory of the Python processes, idle, {count} nodes", load.memory(), "MiB",
        110 if count <= 1000 else 150,
    )


async def main(reactor: Any) -> None:
    """Print the figures."""
    platform = LivePlatform(reactor, net="192.168.176", prefix=20)
    load = Load(platform)
    turns = platform.base / "turns"
    os.environ["WALT_TURNS"] = str(turns)
    try:
        await platform.import_image()
        await platform.start()
        await load.register(range(1, 11))
        bare = bare_interpreter()
        figure("bare interpreter", bare, "ms")
        ten = show_time(platform)
        figure("walt node show --all, 10 nodes", ten, "ms", 40)
        figure("  ratio to the bare interpreter", ten / bare, "")

        answered, written = await burst(load, range(11, 1001))
        figure("990 registrations at once: answered", answered, "s")
        figure("990 registrations at once: database and dhcpd.conf", written, "s")
        await platform.sleep(5)
        answered, written = await burst(load, range(1001, 1101))
        figure("100 registrations, 1,000 nodes there: answered", answered, "s")
        figure("100 registrations: database and dhcpd.conf", written, "s", 0.5)

        client = await load.connect()
        start = time.monotonic()
        await client.call(
            "ss.devices.register", vci="", uci="walt.node.pc-x86-64", mac="02:00:00:ff:00:01",
            ip=load.address_of(1),
        )
        figure("a second MAC claims an address: answered", time.monotonic() - start, "s")
        load.close(client)
        rows = await load.database.query(
            "SELECT mac, ip FROM devices WHERE ip = %s OR mac = '02:00:00:ff:00:01' ORDER BY mac",
            (load.address_of(1),),
        )
        assert rows == [(mac_of(1), load.address_of(1)), ("02:00:00:ff:00:01", None)], rows

        figure("walt node show --all, 1,101 nodes", show_time(platform), "ms", 60)
        await platform.sleep(2)
        longest = json.loads(turns.read_text())
        figure("longest turn of the reactor (CPU)", longest["longest"] * 1000, "ms", 100)
        for spent, stack in longest["long"]:
            print(f"turn of {spent * 1000:.0f} ms:\n{stack}")

        load.database.close()
        await platform.stop()
        del os.environ["WALT_TURNS"]
        await starts(load, 1100)
        await load.register(range(1101, 3001))
        await everywhere(load, range(1101, 3001), time.monotonic())
        await platform.sleep(40)
        figure("memory of the Python processes, 3,000 nodes", load.memory(), "MiB", 150)
    finally:
        load.database.close()
        await platform.close()
    assert not Path(platform.base).exists()


if __name__ == "__main__":
    run_bench(main)
