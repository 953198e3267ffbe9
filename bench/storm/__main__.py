"""Run with `python -m bench.storm`, as root, on a machine that runs the system tests.

nginx, when it is installed, serves the same files beside the server, for comparison.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.protocol import ProcessProtocol

from bench.simulator import Fleet
from bench.storm.boots import FILES, Boot, Storm, boot_files
from tests.system.live import LivePlatform
from tests.system.load import Load, figure, run_bench
from walt.common.mounts import mounted_below

CLIENTS = 32
BOARDS = 10  # each one of so many takes its files by TFTP
NGINX_PORT = 8081
ROUNDS = 3


def nginx_text(base: Path, tree: Path) -> str:
    """Return a configuration of nginx: one worker, sendfile, the files of a tree."""
    return f"""\
daemon off;
user root;
worker_processes 1;
pid {base}/nginx.pid;
error_log {base}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on;
    client_body_temp_path {base}/body; proxy_temp_path {base}/proxy;
    fastcgi_temp_path {base}/fastcgi; uwsgi_temp_path {base}/uwsgi;
    scgi_temp_path {base}/scgi;
    server {{ listen {NGINX_PORT}; location / {{ root {tree}; }} }}
}}
"""


async def rate(platform: LivePlatform, fleet: Fleet, url: str) -> float:
    """Return the bytes per second that CLIENTS get."""
    done = await platform.runner.run([
        "nsenter", f"--net=/run/netns/{fleet.namespace}", "--",
        sys.executable, "-m", "bench.storm.clients", url,
        *(node.ip for node in fleet.nodes[:CLIENTS]),
    ], timeout=120)
    return float(done.stdout)


async def compared(platform: LivePlatform, fleet: Fleet) -> float:
    """Print how fast the server and nginx serve the same file; return the server's rate."""
    node, server = fleet.nodes[0], f"{platform.net}.1"
    tree = (platform.state / "nodes" / node.ip / "tftp").resolve()
    name = max(FILES, key=lambda file: (tree / file).stat().st_size)
    program = shutil.which("nginx")
    found: dict[str, list[float]] = {"server": [], "nginx": []}
    nginx: Any = None
    if program is not None:
        text = platform.base / "nginx.conf"
        text.write_text(nginx_text(platform.base, tree))
        nginx = platform.reactor.spawnProcess(ProcessProtocol(), "nsenter", [
            "nsenter", f"--net=/run/netns/{platform.namespace}", "--",
            program, "-c", str(text), "-p", str(platform.base),
        ], os.environ)
        await platform.sleep(1)
    try:
        for _ in range(ROUNDS):
            found["server"].append(await rate(
                platform, fleet, f"http://{server}/boot/{name}"
            ))
            if nginx is not None:
                found["nginx"].append(await rate(
                    platform, fleet, f"http://{server}:{NGINX_PORT}/{name}"
                ))
    finally:
        if nginx is not None:
            nginx.signalProcess("TERM")
    served = statistics.median(found["server"])
    figure(f"/boot/{name} to {CLIENTS} clients", served / 1e6, "MB/s")
    if nginx is None:
        print("nginx is not installed: nothing to compare with")
    else:
        other = statistics.median(found["nginx"])
        figure("  nginx, the same file", other / 1e6, "MB/s")
        figure("  ratio to nginx", served / other, "", 0.7)
    return served


def told(boots: Sequence[Boot], took: float, predicted: float, title: str) -> None:
    """Print what a storm was like."""
    figure(f"{title}: {len(boots)} nodes, until the last one was booted", took, "s")
    figure("  predicted: their bytes at the rate of 32 clients", predicted, "s")
    figure("  boot script, median", statistics.median(boot.script for boot in boots), "s")
    figure("  boot script, last", max(boot.script for boot in boots), "s")
    figure("  files, last", max(boot.loaded for boot in boots), "s")
    figure("  bytes", sum(boot.size for boot in boots) / 1e6, "MB")
    figure("  tries of the boot script", sum(boot.tries for boot in boots), "")
    unsaved = sum(not boot.persistent for boot in boots)
    figure("  nodes without /persist at that moment", unsaved, "")


async def main(reactor: Any, count: int) -> None:
    """Print the figures."""
    print(f"load average {os.getloadavg()[0]:.1f}")
    platform = LivePlatform(reactor, net="192.168.176", prefix=20)
    load, fleet = Load(platform), Fleet(platform, count)
    try:
        await platform.import_image()
        await platform.start()
        start = time.monotonic()
        await fleet.start()
        while await load.recorded() < count:
            await platform.sleep(0.1)
        figure(f"{count} new nodes: registered", time.monotonic() - start, "s")
        await platform.ok("node", "wait", "--timeout", "60", "all-nodes")
        tree = platform.state / "nodes"
        while not all((tree / node.ip / "fs").exists() for node in fleet.nodes):
            await platform.sleep(0.1)
        figure("  all of them can boot", time.monotonic() - start, "s")
        while len([
            point for point in mounted_below(tree) if point.parent.parent.parent == tree
        ]) < count:
            await platform.sleep(0.5)
        figure("  persistent data of all of them is there", time.monotonic() - start, "s")
        await platform.sleep(5)
        served = await compared(platform, fleet)
        sizes = boot_files(platform.state / "nodes", fleet.nodes[0])
        for title in ("first boot", "another boot"):
            start = time.monotonic()
            boots = await Storm(fleet, BOARDS).run()
            await platform.ok("node", "wait", "--timeout", "120", "all-nodes")
            took = time.monotonic() - start
            assert all(boot.size == sum(sizes.values()) for boot in boots), "a file was cut"
            told(boots, took, sum(boot.size for boot in boots) / served, title)
            await platform.sleep(3)
        figure("memory of the Python processes", load.memory(), "MiB")
        print(f"load average {os.getloadavg()[0]:.1f}")
    finally:
        load.database.close()
        await fleet.stop()
        await platform.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.storm")
    parser.add_argument("--nodes", type=int, default=500)
    chosen = parser.parse_args()
    run_bench(lambda reactor: main(reactor, chosen.nodes))
