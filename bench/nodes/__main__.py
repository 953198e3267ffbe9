"""Run with `python -m bench.nodes`, as root, on a machine that runs the system tests."""

from __future__ import annotations

import statistics
import time
from typing import Any

from twisted.internet.defer import Deferred

from bench.booting import OTHER, add_other_image, all_booted, boot, find_names, requested
from bench.shells import start_shells, stop_shells
from bench.simulator import Fleet
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


async def boots(platform: LivePlatform, fleet: Fleet) -> None:
    """Boot all nodes onto another image; then again with one node that hangs, one that is dead."""
    await all_booted(platform, fleet)
    command, done = await boot(platform, fleet, OTHER)
    figure(f"walt node boot of {len(fleet.nodes)} nodes: command", command, "s")
    figure("  until links, exports and requests are done", done, "s", 2)
    await all_booted(platform, fleet)

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


async def run(platform: LivePlatform, fleet: Fleet) -> None:
    """Run a command on nodes that have an ssh server."""
    chosen = fleet.nodes[2:2 + SHELLS]
    shells = await start_shells(platform, fleet, chosen)
    try:
        nodes = ",".join(node.name for node in chosen)
        slow = f"sleep {SLOW_TIME}; echo slow"
        single = await timed(platform, chosen[0].name, slow)
        figure(f"walt node run of {SLOW_TIME} s, one node", single, "s")
        # The third word of SSH_CONNECTION is the address of the node.
        command = (
            f"set -- $SSH_CONNECTION; if [ $3 = {chosen[0].ip} ]; then {slow};"
            f" else sleep {COMMAND_TIME}; echo fast; fi"
        )
        several = await timed(platform, nodes, command)
        figure(f"  {SHELLS} nodes, of which this one is the slowest", several, "s", 1.5 * single)
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
        await add_other_image(platform)
        await platform.start()
        start = time.monotonic()
        await fleet.start()
        figure(f"{NODES} simulated nodes: DHCP, notification", time.monotonic() - start, "s")
        await find_names(platform, fleet)
        await boots(platform, fleet)
        await run(platform, fleet)
        await show(platform, load)
    finally:
        load.database.close()
        await fleet.stop()
        await platform.close()


if __name__ == "__main__":
    run_bench(main)
