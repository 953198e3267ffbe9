"""Rows of `walt node show` (spec user-surface §1.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from walt.common.names import PLATFORM_USER, short_image_name
from walt.server.domain.devices.model import NETSETUP_NAT, Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.settings import settings_of
from walt.server.domain.nodes.ports import INodePower, IProvisioning
from walt.server.domain.nodes.progress import BootProgress
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.nodes.status import BootStatus

Tables = dict[str, list[dict[str, Any]]]


def node_type(device: Device) -> str:
    """Return physical, virtual or vpn: one rule for every table (Q-15)."""
    if device.virtual:
        return "virtual"
    return "vpn" if device.vpn_mac else "physical"


def netsetup_name(device: Device) -> str:
    """Return LAN or NAT."""
    return "NAT" if device.netsetup == NETSETUP_NAT else "LAN"


class NodeViews:
    """Nodes as programs get them: by `walt node show --json` and by the web API alike."""

    def __init__(
        self, registry: DeviceRegistry, status: BootStatus, power: INodePower,
        provisioning: IProvisioning, progress: BootProgress, reservations: Reservations,
        emulated: Callable[[Device], bool],
    ) -> None:
        self._emulated = emulated
        self._reservations = reservations
        self._registry = registry
        self._status = status
        self._power = power
        self._provisioning = provisioning
        self._progress = progress

    def objects(self, nodes: Iterable[Device]) -> list[dict[str, Any]]:
        """Return objects of some nodes, their settings included."""
        nodes = list(nodes)
        found = self.brief(nodes)
        for node, one in zip(nodes, found, strict=True):
            one["mac"], one["virtual"], one["image"] = node.mac, node.virtual, node.image
            one["boot_stage"] = self._progress.stage(node.mac)
            one["config"] = settings_of(
                node, self._registry.subnet, emulated=self._emulated(node)
            )
        return found

    def brief(self, nodes: Iterable[Device]) -> list[dict[str, Any]]:
        """Return of some nodes what tables show: there may be thousands of them."""
        troubles = self._provisioning.troubles
        found: list[dict[str, Any]] = []
        for node in nodes:
            image, owner = short_image_name(node.image or ""), node.owner
            reserved = self._reservations.get(node.mac)
            found.append({
                "name": node.name, "ip": node.ip, "type": node_type(node), "model": node.model,
                "image_name": image, "owner": None if owner == PLATFORM_USER else owner,
                "clonable_image_link": f"walt:{owner}/{image}" if owner else None,
                "netsetup": netsetup_name(node), "booted": self._status.is_booted(node.mac),
                "powersave": self._power.is_off(node.mac) == "powersave",
                "trouble": troubles.get(node.mac),
                "reserved_by": reserved.user if reserved is not None else None,
                "reserved_until": reserved.until if reserved is not None else None,
            })
        return found

    def total(self) -> int:
        """Return how many nodes there are."""
        return self._registry.count("node")

    def tables(self, user: str, *, show_all: bool, brief: bool = False) -> Tables:
        """Return the caller's nodes, and with `show_all` those that are free and of others.

        With `brief` they have what the tables of the walt command show.
        """
        tables: Tables = {"own": [], "free": [], "others": []}
        nodes = self._registry.nodes()
        if not show_all:
            nodes = [node for node in nodes if node.owner == user]
        nodes.sort(key=lambda one: (one.owner or "", one.name))
        objects = self.brief(nodes) if brief else self.objects(nodes)
        for node, one in zip(nodes, objects, strict=True):
            kind = "own" if node.owner == user else "free" if node.is_free else "others"
            tables[kind].append(one)
        return tables
