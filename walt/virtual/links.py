"""Interfaces of virtual nodes, through iproute2: veth pairs, taps, bridges of their networks.

What is ours is told by its alias, so that interfaces of others are never touched.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any

from walt.common.errors import CommandFailed, Conflict
from walt.common.machines import BOOT_NETWORK
from walt.common.traffic_shaping import Limits, disciplines
from walt.virtual.namespace import Namespace
from walt.virtual.processes import run
from walt.virtual.timing import uninterrupted

TAP_ALIAS = "WalT virtual node"
NETWORK_ALIAS = "WalT network of virtual nodes"
INNER = "node0"
POLL = 1.0  # seconds


def exists(name: str) -> bool:
    """Tell whether this machine has an interface of that name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


async def wait_for_bridge(say: Callable[[str], None]) -> None:
    """Wait until bridge walt-net is there: a tunnel may bring it later."""
    if not exists(BOOT_NETWORK):
        say(f"waiting for the bridge {BOOT_NETWORK}")
    while not exists(BOOT_NETWORK):
        await asyncio.sleep(POLL)


async def batch(lines: Sequence[str]) -> None:
    """Run commands of ip-link(8), one a line, until one fails. Raises CommandFailed."""
    if lines:
        text = "".join(f"{line}\n" for line in lines)
        # Never cut: an interface without its alias would not be known as ours.
        await uninterrupted(run(["ip", "-batch", "-"], text.encode()))


async def add_cable(outer: str, mac: str, namespace: Namespace) -> None:
    """Make a veth pair: `outer` is a port of walt-net; the other end, INNER, is in a
    namespace and has the MAC of a node."""
    await remove([outer])
    await batch([
        f"link add name {outer} type veth peer name {INNER} address {mac} netns {namespace.path}",
        f'link set dev {outer} alias "{TAP_ALIAS}"',
        f"link set dev {outer} addrgenmode none master {BOOT_NETWORK} up",
    ])
    await run(namespace.command("ip", "link", "set", "dev", INNER, "addrgenmode", "none", "up"))


async def add_tap(name: str, network: str) -> None:
    """Make a tap that is a port of a network. Raises CommandFailed, Conflict.

    A network that is not there yet is made: a bridge in which this machine has no part.
    """
    await remove([name])
    lines = []
    if network != BOOT_NETWORK:
        link = (await _links()).get(network)
        if link is None:
            lines += [
                f"link add name {network} type bridge",
                f'link set dev {network} alias "{NETWORK_ALIAS}" addrgenmode none up',
            ]
        elif link.get("ifalias") != NETWORK_ALIAS:
            raise Conflict(
                f"this machine has an interface named {network}, which is not a network of virtual"
                " nodes; choose another name for the network"
            )
    await batch([
        *lines, f"tuntap add dev {name} mode tap", f'link set dev {name} alias "{TAP_ALIAS}"',
        f"link set dev {name} addrgenmode none master {network} up",
    ])


async def shape(name: str, limits: Limits) -> bool:
    """Delay and limit what a tap sends to its machine; False where the kernel cannot."""
    try:
        for words in disciplines(limits):
            await run(["tc", "qdisc", "add", "dev", name, *words])
    except CommandFailed:
        return False
    return True


async def remove(names: Collection[str]) -> None:
    """Delete interfaces of ours, and networks that nothing is on any more."""
    links = await _links()
    ours = [name for name in names if links.get(name, {}).get("ifalias") == TAP_ALIAS]
    in_use = {link.get("master") for name, link in links.items() if name not in ours}
    empty = [
        name for name, link in links.items()
        if link.get("ifalias") == NETWORK_ALIAS and name not in in_use
    ]
    await batch([f"link delete dev {name}" for name in (*ours, *empty)])


async def _links() -> dict[str, dict[str, Any]]:
    found = json.loads(await run(["ip", "-json", "link", "show"]))
    return {link["ifname"]: link for link in found if "ifname" in link}
