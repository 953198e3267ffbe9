"""What nodes report of the switch they are connected to (spec server §6.5)."""

from __future__ import annotations

from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.interfaces import ITopology

MAX_LABEL = 255  # an LLDP port identifier (IEEE 802.1AB §8.5.3)


class NeighbourReports:
    """Places nodes in the topology."""

    def __init__(
        self, registry: DeviceRegistry, topology: ITopology, platform: PlatformLog
    ) -> None:
        self._registry = registry
        self._topology = topology
        self._platform = platform
        self._proposed: set[str] = set()

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
        port = self._topology.labelled(switch.mac, label[:MAX_LABEL])
        if port is None:
            await self._topology.look_again(switch)
            port = self._topology.labelled(switch.mac, label[:MAX_LABEL])
        if await self._topology.locate(node.mac, switch.mac, port):
            self._platform.write(
                "devices",
                f"Node {node.name} is now connected on {switch.name} port"
                f" {label[:MAX_LABEL] or '?'}",
            )
