"""What nodes report of the switch they are connected to (spec server §6.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.service import PlatformLog

MAX_LABEL = 255  # an LLDP port identifier (IEEE 802.1AB §8.5.3)


class NeighbourReports:
    """Places nodes in the topology; `topology` provides ITopology."""

    def __init__(self, registry: DeviceRegistry, topology: Any, platform: PlatformLog) -> None:
        self._registry = registry
        self._topology = topology
        self._platform = platform

    async def report(self, node_ip: str | None, switch_mac: str, label: str) -> None:
        """A node sees a device on a port whose label is `label`.

        Ignored unless both are known. A device of unknown type that has a port
        is a switch. The place is recorded when the switch may be explored; a
        label which is no number gives a place without a port.
        """
        node = self._registry.by_ip(node_ip) if node_ip is not None else None
        switch = self._registry.get(switch_mac)
        if node is None or not node.is_node or switch is None:
            return
        if switch.type == "unknown":
            switch = replace(switch, type="switch")
            await self._registry.put(switch)
            self._platform.write(
                "devices",
                f"Node {node.name} is connected on {switch.name}, so {switch.name} is a switch.",
            )
        if switch.type != "switch" or not switch.conf.get("lldp.explore"):
            return
        port = int(label) if label.isascii() and label.isdigit() and len(label) < 6 else None
        if await self._topology.locate(node.mac, switch.mac, port):
            self._platform.write(
                "devices",
                f"Node {node.name} is now connected on {switch.name} port"
                f" {label[:MAX_LABEL] or '?'}",
            )
