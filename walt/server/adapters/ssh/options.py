"""Options of the ssh client, towards nodes."""

from __future__ import annotations

from pathlib import Path


def node_options(known_hosts: Path, key: Path) -> list[str]:
    """Return the options common to every connection to a node.

    All nodes share one host key (N-095), so that their addresses do not matter.
    """
    return [
        "-F", "/dev/null", "-i", str(key),
        "-o", "PreferredAuthentications=publickey",
        "-o", f"UserKnownHostsFile={known_hosts}", "-o", "HostKeyAlias=walt.node",
        "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes",
        "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "LogLevel=ERROR",
        "-o", "IdentitiesOnly=yes",
    ]
