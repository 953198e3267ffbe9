"""Places of nodes, in memory."""

from __future__ import annotations

from zope.interface import implementer

from walt.server.domain.devices.model import Device
from walt.server.domain.nodes.interfaces import ITopology


@implementer(ITopology)
class FakeTopology:
    """One (switch, port) for each node."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[str, int | None]] = {}
        self.labels: dict[str, int] = {}  # besides numbers, which are their own
        self.looked: list[str] = []

    def labelled(self, switch_mac: str, label: str) -> int | None:
        if label.isascii() and label.isdigit() and len(label) < 6:
            return int(label)
        return self.labels.get(label)

    async def look_again(self, switch: Device) -> None:
        self.looked.append(switch.name)

    async def locate(self, node_mac: str, switch_mac: str, port: int | None) -> bool:
        known = self.places.get(node_mac)
        if port is None and known is not None and known[0] == switch_mac:
            port = known[1]
        place = (switch_mac, port)
        for node, other in self.places.items():
            if node != node_mac and other == place and port is not None:
                return False
        self.places[node_mac] = place
        return known != place
