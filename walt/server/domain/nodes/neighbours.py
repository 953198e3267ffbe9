"""What nodes report of the switch they are connected to (spec server §6.5)."""

from __future__ import annotations

from dataclasses import replace

from walt.server.domain.devices.model import Device
from walt.server.domain.devices.naming import clear_name
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.settings import as_switch
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.interfaces import ITopology
from walt.server.runtime.coroutines import unbroken

MAX_LABEL = 255  # an LLDP port identifier (IEEE 802.1AB §8.5.3)


class NeighbourReports:
    """Places nodes in the topology.

    `convert` is what an administrator decided: a device of unknown type that a node reports
    becomes a switch, whatever else it may be.
    """

    def __init__(
        self, registry: DeviceRegistry, topology: ITopology, platform: PlatformLog, *,
        convert: bool = False,
    ) -> None:
        self._convert = convert
        self._registry = registry
        self._topology = topology
        self._platform = platform
        self._proposed: set[str] = set()

    async def report(self, node_ip: str | None, switch_mac: str, label: str) -> None:
        """A node sees a device on a port whose label is `label`.

        Ignored unless both are known. A report changes the place of the node and nothing
        else, unless devices shall be converted: that a device of unknown type is a switch is
        proposed to people, once, and a port where another node is remains its own. The place
        is recorded when the switch may be explored; a label that is no port's gives a place
        without a port.
        """
        node = self._registry.by_ip(node_ip) if node_ip is not None else None
        switch = self._registry.get(switch_mac)
        if node is None or not node.is_node or switch is None:
            return
        if switch.type == "unknown" and self._convert:
            await self._become_switch(node, switch)
        elif switch.type == "unknown" and switch.mac not in self._proposed:
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
        await self._locate(node, switch, port, label)

    @unbroken
    async def _locate(self, node: Device, switch: Device, port: int | None, label: str) -> None:
        if await self._topology.locate(node.mac, switch.mac, port):
            self._platform.write(
                "devices",
                f"Node {node.name} is now connected on {switch.name} port"
                f" {label[:MAX_LABEL] or '?'}",
            )

    @unbroken
    async def _become_switch(self, node: Device, device: Device) -> None:
        name = clear_name(device.name, "switch", device.mac, self._registry.name_taken)
        await self._registry.put(replace(as_switch(device), name=name))
        self._platform.write(
            "devices",
            f"Node {node.name} is connected on {device.name}, so {device.name} is a switch.",
        )
        self._platform.write(
            "devices", f"{device.name} is {name} now; if that is no switch, run:"
            f" walt device forget {name}",
        )
        if name != device.name:
            self._platform.write("devices", f"renamed {device.name} to {name} for clarity")
