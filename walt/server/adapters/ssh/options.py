"""Options of the ssh client: for all connections, and towards nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

# Of root nothing is used: no configuration, no agent, no key that is not named. What comes
# from the far side or from a client's keyboard opens nothing here: no escapes (`~C` would
# make tunnels), nothing forwarded.
CLOSED = (
    "-F", "/dev/null", "-e", "none", "-a", "-x", "-o", "IdentitiesOnly=yes",
    "-o", "IdentityAgent=none", "-o", "ClearAllForwardings=yes",
)
NO_IDENTITY = ("-o", "IdentityFile=none")


def node_options(known_hosts: Path, *keys: Path) -> list[str]:
    """Return the options common to every connection to a node; it accepts one of the keys.

    All nodes share one host key (N-095), so that their addresses do not matter.
    """
    return [
        *CLOSED, *(word for key in keys for word in ("-i", str(key))),
        "-o", "PreferredAuthentications=publickey",
        "-o", f"UserKnownHostsFile={known_hosts}", "-o", "HostKeyAlias=walt.node",
        "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes",
        "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5",
        # A node that is emulated on a busy machine may be silent for a while.
        "-o", "ServerAliveCountMax=6", "-o", "LogLevel=ERROR",
    ]


def device_command(address: str, user: str, *, own_keys: bool = False) -> list[str]:
    """Return the ssh command to an unmanaged device: host key not remembered.

    Such a device may be installed anew at any time (spec node-protocols §5.3). It asks for a
    password; with `own_keys`, the keys of the account that runs the command count, too.
    """
    return [
        "ssh", *CLOSED, *(() if own_keys else NO_IDENTITY), "-o", "UserKnownHostsFile=/dev/null",
        "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no",
        "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "LogLevel=ERROR",
        "-l", user, "--", address,
    ]


def git_command(identity: Path | None, more: Sequence[str] = ()) -> list[str]:
    """Return the ssh command for git: no password is asked, and no key but `identity`."""
    key = NO_IDENTITY if identity is None else ("-i", str(identity))
    return ["ssh", *CLOSED, *key, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *more]
