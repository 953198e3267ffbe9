"""Run with `python -m bench.nodes`, as root, on a machine that runs the system tests."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from bench.shells import start_shells, stop_shells
from bench.simulator import Fleet, SimulatedNode
from tests.system.live import LivePlatform
from tests.system.load import (
    AmpClient,
    Load,
    bare_interpreter,
    figure,
    run_bench,
    wall_times,
    walt_command,
)

NODES = 200
SHELLS = 20
SHOWN = 1000
COMMAND_TIME = 1
SLOW_TIME = 4


async def boot(platform: LivePlatform, fleet: Fleet, names: list[str]) -> None:
    """Boot all nodes onto another image; then again with one node that hangs, one that is dead."""
    await all_booted(platform, names)
    start = time.monotonic()
    result = await platform.walt("node", "boot", "all-nodes", "other")
    figure(f"walt node boot of {len(names)} nodes: command", time.monotonic() - start, "s")
    figure("  until links, exports and requests are done", await settled(platform, fleet, start),
           "s", 2)
    print(result.stdout.decode() + result.stderr.decode())
    assert result.status == 0, result
    await all_booted(platform, names)

    hanging, dead = fleet.nodes[0], fleet.nodes[1]
    hanging.reply = None
    await dead.port.stopListening()
    await platform.runner.run([
        "ip", "-n", fleet.namespace, "address", "del", f"{dead.ip}/{platform.prefix}", "dev", "sim"
    ])
    for node in fleet.nodes:
        node.requests.clear()
    start = time.monotonic()
    running = Deferred.fromCoroutine(platform.walt("node", "reboot", "all-nodes"))
    others = [node for node in fleet.nodes if node not in (hanging, dead)]
    await requested(platform, others)
    figure("with one node that hangs and one dead: the others asked", time.monotonic() - start,
           "s", 2)
    result = await running
    figure("  and the command, with the limit of 15 s to answer", time.monotonic() - start, "s")
    print(result.stdout.decode() + result.stderr.decode())


async def settled(platform: LivePlatform, fleet: Fleet, start: float) -> float:
    """Return when every boot link leads to the other image and every node was asked."""
    await requested(platform, fleet.nodes)
    asked = time.monotonic() - start
    root = platform.state / "nodes"
    wanted = {Path(root / node.ip / "fs").resolve() for node in fleet.nodes}
    assert len(wanted) == 1, wanted
    return asked


async def requested(platform: LivePlatform, nodes: list[SimulatedNode]) -> None:
    """Return when each of these nodes was asked to reboot."""
    while not all("REBOOT" in node.requests for node in nodes):
        await platform.sleep(0.01)


async def all_booted(platform: LivePlatform, names: list[str]) -> None:
    """Wait for the notifications of these nodes."""
    await platform.ok("node", "wait", "--timeout", "60", ",".join(names))


async def run(platform: LivePlatform, fleet: Fleet, names: dict[str, str]) -> None:
    """Run a command on nodes that have an ssh server."""
    chosen = fleet.nodes[2:2 + SHELLS]
    shells = await start_shells(platform, fleet, chosen)
    try:
        nodes = ",".join(names[node.mac] for node in chosen)
        slow = f"sleep {SLOW_TIME}; echo slow"
        one = await timed(platform, names[chosen[0].mac], slow)
        figure(f"walt node run of {SLOW_TIME} s, one node", one, "s")
        # The third word of SSH_CONNECTION is the address of the node.
        command = (
            f"set -- $SSH_CONNECTION; if [ $3 = {chosen[0].ip} ]; then {slow};"
            f" else sleep {COMMAND_TIME}; echo fast; fi"
        )
        several = await timed(platform, nodes, command)
        figure(f"  {SHELLS} nodes, of which this one is the slowest", several, "s", 1.5 * one)
    finally:
        await stop_shells(platform, shells)


async def timed(platform: LivePlatform, nodes: str, command: str) -> float:
    """Return the wall time of `walt node run`."""
    start = time.monotonic()
    await platform.ok("node", "run", nodes, "--", command)
    return time.monotonic() - start


async def call_time(client: AmpClient, command: str, **arguments: str) -> float:
    """Return the median time of a call, in ms."""
    spent = []
    for _ in range(30):
        start = time.perf_counter()
        await client.call(command, **arguments)
        spent.append((time.perf_counter() - start) * 1000)
    return statistics.median(spent)


async def show(platform: LivePlatform, load: Load) -> None:
    """Show many nodes."""
    await load.register(range(1, SHOWN - NODES + 1))
    await platform.sleep(6)
    bare = bare_interpreter()
    figure("bare interpreter", bare, "ms")
    for words in (["--all"], ["--all", "--json"]):
        spent = wall_times(walt_command("node", "show", *words), platform.environment())
        figure(f"walt node show {' '.join(words)}, {SHOWN} nodes", spent, "ms", 60)
        figure("  ratio to the bare interpreter", spent / bare, "")
    client = await load.connect()
    await client.call("hello", program="bench", version="1", protocol="1", username="alice")
    figure("  a call with a short answer", await call_time(client, "cs.server.time"), "ms")
    figure("  the call alone", await call_time(client, "cs.nodes.show", all="True"), "ms", 8)
    load.close(client)


async def main(reactor: Any) -> None:
    """Print the figures."""
    platform = LivePlatform(reactor, net="192.168.176", prefix=20)
    load, fleet = Load(platform), Fleet(platform, NODES)
    try:
        await platform.import_image()
        await platform.add_image("alice/other", {"/etc/other": "other\n"})
        await platform.start()
        start = time.monotonic()
        await fleet.start()
        figure(f"{NODES} simulated nodes: DHCP, notification", time.monotonic() - start, "s")

        async def registered() -> bool:
            rows = json.loads(await platform.ok("node", "show", "--all", "--json"))["free"]
            return len(rows) == NODES

        await platform.until(registered, "all nodes are registered")
        rows = json.loads(await platform.ok("device", "show", "--json"))["known"]
        names = {row["mac"]: row["name"] for row in rows if row["type"].startswith("node")}
        for node in fleet.nodes:
            node.name = names[node.mac]
        await boot(platform, fleet, sorted(names.values()))
        await run(platform, fleet, names)
        await show(platform, load)
    finally:
        load.database.close()
        await fleet.stop()
        await platform.close()


if __name__ == "__main__":
    run_bench(main)
