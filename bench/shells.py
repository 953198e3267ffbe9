"""ssh servers of simulated nodes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from bench.simulator import Fleet, SimulatedNode
from tests.system.live import LivePlatform
from walt.server.adapters.ssh.keys import ensure_node_key


async def start_shells(
    platform: LivePlatform, fleet: Fleet, nodes: Collection[SimulatedNode]
) -> list[Path]:
    """Start an ssh server for each node, with the keys of the platform; return pid files.

    One daemon a node: each takes 5 connections of one address before they log
    in. /root is another directory for it alone.
    """
    home = platform.base / "home"
    (home / ".ssh").mkdir(parents=True)
    keys = home / ".ssh" / "authorized_keys"
    keys.write_text(await ensure_node_key(platform.runner, platform.state))
    keys.chmod(0o600)
    host_key = platform.state / "keys" / "dropbear_ecdsa_host_key"
    pid_files = []
    for node in nodes:
        pid_files.append(platform.base / f"dropbear{node.number}.pid")
        start = 'mount --bind "$1" /root && shift && exec dropbear "$@" >/dev/null 2>&1'
        await platform.runner.run([
            "nsenter", f"--net=/run/netns/{fleet.namespace}", "--", "unshare", "--mount",
            "sh", "-c", start, "sh", str(home), "-s", "-r", str(host_key),
            "-P", str(pid_files[-1]), "-p", f"{node.ip}:22",
        ])
    return pid_files


async def stop_shells(platform: LivePlatform, pid_files: Collection[Path]) -> None:
    """End these servers."""
    for pid_file in pid_files:
        await platform.runner.run(["kill", pid_file.read_text().strip()], check=False)
