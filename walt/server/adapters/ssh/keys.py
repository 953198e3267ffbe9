"""SSH keys of the platform: the host key of all nodes, the key of the server."""

from __future__ import annotations

import os
from pathlib import Path

from walt.common.files import write_atomic
from walt.server.runtime.process import ProcessRunner

HOST_KEY = "ssh_host_ecdsa_key"
DROPBEAR_KEY = "dropbear_ecdsa_host_key"
HOST_ALIAS = "walt.node"


async def ensure_host_keys(runner: ProcessRunner, keys: Path) -> None:
    """Make the common host key of nodes in directory `keys`, once, in both formats.

    OpenSSH and dropbear images of one node must show the same key, so the second
    is converted from the first. Raises CommandFailed or Unavailable.
    """
    keys.mkdir(parents=True, exist_ok=True)
    key = keys / HOST_KEY
    if not (key.exists() and Path(f"{key}.pub").exists()):
        key.unlink(missing_ok=True)
        await runner.run([
            "ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-C", "root@walt.node", "-f", str(key),
        ])
    dropbear = keys / DROPBEAR_KEY
    if not dropbear.exists():
        beside = keys / f".{DROPBEAR_KEY}.new"
        beside.unlink(missing_ok=True)
        await runner.run(["dropbearconvert", "openssh", "dropbear", str(key), str(beside)])
        beside.chmod(0o600)
        beside.rename(dropbear)


async def ensure_server_key(runner: ProcessRunner, home: Path = Path("/root")) -> str:
    """Return the server's public key in one line, made if missing (`~/.ssh/id_rsa`).

    Raises CommandFailed or Unavailable.
    """
    directory = home / ".ssh"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = directory / "id_rsa"
    if not key.exists():
        await runner.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-N", "", "-f", str(key)])
    public = Path(f"{key}.pub")
    if not public.exists() or public.stat().st_size == 0:  # as a power failure may leave it
        result = await runner.run(["ssh-keygen", "-y", "-f", str(key)])
        write_atomic(public, result.stdout)
    return public.read_text().strip()


def known_hosts_line(keys: Path) -> str:
    """Return the line of `known_hosts.nodes`: every node has the alias `walt.node`."""
    algorithm, key, *_ = (keys / f"{HOST_KEY}.pub").read_text().split()
    return f"{HOST_ALIAS} {algorithm} {key}\n"


def write_known_hosts(keys: Path, path: Path) -> None:
    """Write `known_hosts.nodes` at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != known_hosts_line(keys):
        write_atomic(path, known_hosts_line(keys))


def node_ssh_command(address: str, key: Path, known_hosts: Path) -> list[str]:
    """Return the beginning of an ssh command to a node (spec node-protocols §5.3)."""
    return [
        "ssh", "-i", os.fspath(key), "-o", "PreferredAuthentications=publickey",
        "-o", f"UserKnownHostsFile={known_hosts}", "-o", f"HostKeyAlias={HOST_ALIAS}",
        "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", f"root@{address}",
    ]


def device_ssh_command(address: str, user: str) -> list[str]:
    """Return the ssh command to an unmanaged device: passwords allowed, host key not remembered.

    Such a device may be installed anew at any time (spec node-protocols §5.3).
    """
    return [
        "ssh", "-F", "/dev/null", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no",
        "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "LogLevel=ERROR",
        "-l", user, "--", address,
    ]
