"""Run with `python -m bench.registration`, as root, on a machine that runs the system tests."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench.booting import OTHER, add_images, add_other_image, all_booted, boot, find_names
from bench.simulator import Fleet
from bench.starting import postgres, postgres_alone
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

STREAMS_OF_NODE = 10
BOOTED = 200  # nodes that boot another image
LONGEST_START = 900.0  # seconds until nodes can mount what they boot


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


def show_time(platform: LivePlatform) -> float:
    """Return the median wall time of `walt node show --all`, in ms."""
    return wall_times(walt_command("node", "show", "--all"), platform.environment())


async def starts(load: Load, count: int) -> None:
    """Measure three starts with `count` nodes, and the memory after the last one."""
    alone, own, whole = [], [], []
    for number in range(3):
        alone.append(await postgres_alone(load))
        stages = await load.stages_of_start(LONGEST_START)
        own.append(stages[0])
        whole.append(stages[1])
        if number < 2:
            load.database.close()
            await load.platform.stop()
    database = statistics.median(alone)
    figure(f"PostgreSQL alone, start, {count} nodes", database, "s")
    figure(f"server, start besides PostgreSQL's own, {count} nodes",
           statistics.median(own) - database, "s", 1.5)
    figure("  until what nodes mount is exported (by ganesha here)",
           statistics.median(whole) - database, "s")
    await load.platform.sleep(40)  # idle workers end after 30 s
    figure(
        f"memory of the Python processes, idle, {count} nodes", load.memory(), "MiB",
        110 if count <= 1000 else 150,
    )


async def seeded(load: Load, count: int, images: Sequence[str]) -> None:
    """Fill the database of a server that is stopped with `count` nodes, and streams of their logs.

    They boot `images`, by turns, or the one that the first node boots if there are none. They
    have no persistent data (each would be a mount of this machine), and nobody waits for their
    boots.
    """
    numbers = range(1, count + 1)
    macs = [mac_of(number) for number in numbers]
    child = postgres(load)
    child.startService()
    await load.recorded()
    await load.database.query(
        "WITH added AS (INSERT INTO devices (mac, ip, name, type, virtual, conf)"
        " SELECT mac, ip, name, 'node', false, %s::jsonb"
        " FROM unnest(%s::text[], %s::text[], %s::text[]) AS new (mac, ip, name) RETURNING mac)"
        " INSERT INTO nodes (mac, image, model)"
        " SELECT added.mac, known.image, known.model FROM added, (SELECT image, model FROM nodes"
        " LIMIT 1) AS known RETURNING mac",
        ('{"mount.persist": false, "boot.timeout": null}',
         macs[1:], [load.address_of(number) for number in numbers[1:]],
         [f"node-{number:06x}" for number in numbers[1:]]),
    )
    await load.database.execute(
        "INSERT INTO logstreams (issuer_mac, name)"
        " SELECT mac, 'stream-' || number FROM devices, generate_series(1, %s) AS number"
        " WHERE type = 'node'", (STREAMS_OF_NODE,),
    )
    if images:
        await load.database.execute(
            "UPDATE nodes SET image = new.image FROM unnest(%s::text[], %s::text[])"
            " AS new (mac, image) WHERE nodes.mac = new.mac",
            (macs, list(islice(cycle(images), count))),
        )
    load.database.close()
    await child.stopService()


async def boots(load: Load, nodes: int) -> None:
    """Print how long some more than `nodes`, simulated ones, take to be sent to another image."""
    platform = load.platform
    fleet = Fleet(platform, BOOTED)
    # They need no lease: here another part of the way is measured.
    for node in fleet.nodes:
        node.ip = load.address_of(nodes + node.number)
    await load.record({node.mac: node.ip for node in fleet.nodes})
    try:
        await fleet.start()
        await find_names(platform, fleet)
        await all_booted(platform, fleet)
        command, done = await boot(platform, fleet, OTHER)
    finally:
        await fleet.stop()
    figure(f"walt node boot of {BOOTED} of the nodes: command", command, "s")
    figure("  until links, exports and requests are done", done, "s", 2)


def mounted(platform: LivePlatform) -> int:
    """Return how many images are mounted."""
    return sum((image / "fs").is_mount() for image in (platform.state / "images").iterdir())


async def grown(reactor: Any, nodes: int, count: int) -> None:
    """Print the figures of a platform of `nodes` nodes, which boot `count` images or one."""
    platform = LivePlatform(reactor, net="192.168.128", prefix=17)
    load = Load(platform)
    turns = platform.base / "turns"
    print(f"load average {os.getloadavg()[0]:.1f}")
    try:
        await platform.import_image()
        await add_other_image(platform)
        images = await add_images(platform, count)
        await platform.start()
        await burst(load, range(1, 2))
        load.database.close()
        await platform.stop()
        await seeded(load, nodes, images)
        alone = await postgres_alone(load)
        own, whole = await load.stages_of_start(LONGEST_START)
        figure(f"first start, {nodes} nodes, besides PostgreSQL's own", own - alone, "s")
        figure("  until what nodes mount is exported (by ganesha here)", whole - alone, "s")
        await platform.sleep(10)
        load.database.close()
        await platform.stop()
        alone = await postgres_alone(load)
        os.environ["WALT_TURNS"] = str(turns)
        own, whole = await load.stages_of_start(LONGEST_START)
        figure(f"start, {nodes} nodes, besides PostgreSQL's own", own - alone, "s", 1.5)
        figure("  until what nodes mount is exported (by ganesha here)", whole - alone, "s")
        await platform.sleep(15)
        figure("  images that are mounted for them", mounted(platform), "")
        longest = json.loads(turns.read_text())
        figure("longest turn of the reactor at start (CPU)", longest["longest"] * 1000, "ms", 50)
        last = nodes
        for _ in range(3):
            answered, written = await burst(load, range(last + 1, last + 101))
            last += 100
            figure(f"100 registrations, {last - 100} nodes there: answered", answered, "s")
            figure("  database and dhcpd.conf", written, "s", 0.3)
            await platform.sleep(4)
        figure("bare interpreter", bare_interpreter(), "ms")
        figure(f"walt node show --all, {last} nodes", wall_times(
            walt_command("node", "show", "--all"), platform.environment()
        ), "ms", 150)
        figure("  with --json", wall_times(
            walt_command("node", "show", "--all", "--json"), platform.environment()
        ), "ms", 120)
        stream = ("--issuers", "node-000005", "--streams", "stream-7")
        figure(f"one of {nodes * STREAMS_OF_NODE} streams of logs is read", wall_times(
            walt_command("log", "show", "--history", "full", *stream), platform.environment()
        ), "ms")
        await platform.sleep(2)
        await boots(load, last)
        await platform.sleep(2)
        longest = json.loads(turns.read_text())
        figure("longest turn of the reactor (CPU)", longest["longest"] * 1000, "ms", 50)
        for spent, stack in sorted(longest["long"], reverse=True)[:12]:
            print(f"turn of {spent * 1000:.0f} ms:", *stack.splitlines()[-12:], sep="\n")
        del os.environ["WALT_TURNS"]
        await platform.sleep(40)  # idle workers end after 30 s
        figure(f"memory of the Python processes, idle, {last} nodes", load.memory(), "MiB", 130)
        print(f"load average {os.getloadavg()[0]:.1f}")
    finally:
        load.database.close()
        await platform.close()


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
        await platform.sleep(8)  # the first nodes have their image mounted, the NFS server starts
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


def chosen() -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Return the measurement that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.registration")
    parser.add_argument(
        "--nodes", type=int, help="measure on a platform that has this number of nodes"
    )
    parser.add_argument(
        "--images", type=int, default=0, help="with that many names of images, which these boot"
    )
    options = parser.parse_args()
    if options.nodes is None:
        if options.images:
            parser.error("--images needs --nodes")
        return main
    return lambda reactor: grown(reactor, options.nodes, options.images)


if __name__ == "__main__":
    run_bench(chosen())
