"""What nodes report of the switch they are connected to (spec server §6.5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.service import PlatformLog

MAX_LABEL = 255  # an LLDP port identifier (IEEE 802.1AB §8.5.3)


def _number_of(switch: str, label: str) -> int | None:
    """Return the number that a label is: all that is known of a switch that was never read."""
    return int(label) if label.isascii() and label.isdigit() and len(label) < 6 else None


class NeighbourReports:
    """Places nodes in the topology; `topology` provides ITopology.

    `labelled` tells which port of a switch (MAC) LLDP calls by a label, and
    `look_again` reads a switch whose labels are not known.
    """

    def __init__(self, registry: DeviceRegistry, topology: Any, platform: PlatformLog) -> None:
        self._registry = registry
        self._topology = topology
        self._platform = platform
        self._proposed: set[str] = set()
        self.labelled: Callable[[str, str], int | None] = _number_of
        self.look_again: Callable[[Device], Awaitable[None]] | None = None

    async def report(self, node_ip: str | None, switch_mac: str, label: str) -> None:
        """A node sees a device on a port whose label is `label`.

        Ignored unless both are known. A report changes the place of the node and nothing
        else: that a device of unknown type is a switch is proposed to people, once, and a
        port where another node is remains its own. The place is recorded when the switch
        may be explored; a label that is no port's gives a place without a port.
        """
        node = self._registry.by_ip(node_ip) if node_ip is not None else None
        switch = self._registry.get(switch_mac)
        if node is None or not node.is_node or switch is None:
            return
        if switch.type == "unknown" and switch.mac not in self._proposed:
            self._proposed.add(switch.mac)
            self._platform.write(
                "devices",
                f"Node {node.name} says that it is connected to {switch.name}; if that is a"
                f" switch, run: walt device config {switch.name} type=switch",
            )
        if switch.type != "switch" or not switch.conf.get("lldp.explore"):
            return
        port = self.labelled(switch.mac, label[:MAX_LABEL])
        if port is None and self.look_again is not None:
            await self.look_again(switch)
            port = self.labelled(switch.mac, label[:MAX_LABEL])
        if await self._topology.locate(node.mac, switch.mac, port):
            self._platform.write(
                "devices",
                f"Node {node.name} is now connected on {switch.name} port"
                f" {label[:MAX_LABEL] or '?'}",
            )
