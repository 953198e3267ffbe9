"""From a change of devices or images to nodes that can boot (spec server §4.1, §4.4).

Order: mount what is wanted, export it, unmount the rest; then boot links;
DHCP, DNS and firewall follow at their own pace.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from zope.interface import implementer

from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.domain.nodes.ports import IProvisioning
from walt.server.domain.services.service import NetworkServices
from walt.server.runtime.ordered import shielded, spawn

_log = Logger()


def export_plan(
    registry: DeviceRegistry, mounted: Mapping[str, str], paths: Mapping[str, Path],
    nodes_directory: Path,
) -> ExportPlan:
    """Return what NFS must export.

    `mounted` gives the image id of each full name, `paths` the tree of each id.
    """
    nodes = []
    for node in registry.nodes():
        if node.ip is None or not node.in_network(registry.subnet):
            continue
        persist = None
        if node.conf.get("mount.persist", True):
            persist = nodes_directory / node.mac / "persist_dirs" / str(node.owner)
        nodes.append(NodeExport(
            node.mac, node.ip, node.name, mounted.get(node.image or ""), persist
        ))
    images = tuple(sorted(ImageExport(one, path) for one, path in paths.items()))
    return ExportPlan(registry.subnet, images, tuple(sorted(nodes, key=lambda one: one.mac)))


@implementer(IProvisioning)
class Provisioning:
    """Follows the registry; changes made while one update runs are merged in the next."""

    def __init__(
        self, registry: DeviceRegistry, images: Any, exporter: Any, network: NetworkServices,
        nodes_directory: Path,
    ) -> None:
        self._registry = registry
        self._images = images
        self._exporter = exporter
        self._network = network
        self._nodes_directory = nodes_directory
        self._dirty = False
        self._running: Deferred[None] | None = None
        self._network_pending: set[Deferred[None]] = set()
        self._boots: dict[str, tuple[Any, ...]] = {}
        self._started = False

    def start(self) -> Deferred[None]:
        """Begin to follow the registry, with a first update; fires when it is in force."""
        self._started = True
        self._registry.observe(self._on_change)
        return self.update()

    def _on_change(self, macs: frozenset[str]) -> None:
        self._follow_network()
        changed = False
        for mac in macs:
            device = self._registry.get(mac)
            key = _boot_key(device) if device is not None and device.is_node else None
            if self._boots.get(mac) != key:
                changed = True
                if key is None:
                    self._boots.pop(mac, None)
                else:
                    self._boots[mac] = key
        if changed:
            self.update()

    def _follow_network(self) -> None:
        pending = self._network.update(devices=self._registry.all())
        self._network_pending.add(pending)

        def in_force(result: None) -> None:
            self._network_pending.discard(pending)

        pending.addCallback(in_force)

    def update(self) -> Deferred[None]:
        """Bring mounts, exports and links in step; fires when they are."""
        self._dirty = True
        if self._running is None:
            self._running = spawn(self._update(), "preparing images for nodes")
            self._running.addBoth(self._finished)
        return shielded(self._running) if self._running is not None else _fired()

    def _finished(self, result: Any) -> Any:
        self._running = None
        return result

    async def _update(self) -> None:
        while self._dirty:
            self._dirty = False
            wanted = {node.image for node in self._registry.nodes() if node.image}
            await self._images.update_mounts(wanted, self._export)

    async def _export(self, mounted: Mapping[str, str], paths: Mapping[str, Path]) -> None:
        """Export these mounted images, and point boot links to them."""
        await self._exporter.apply(
            export_plan(self._registry, mounted, paths, self._nodes_directory)
        )
        await self._network.update_links(self._registry.all(), mounted)

    async def settled(self) -> None:
        """Return when mounts, exports and links are in step with the registry."""
        while self._running is not None:
            await shielded(self._running)

    async def network_settled(self) -> None:
        """Return when DHCP and DNS know every device, too."""
        await self.settled()
        if self._network_pending:
            await DeferredList([shielded(one) for one in list(self._network_pending)])


def _boot_key(device: Device) -> tuple[Any, ...]:
    """Return what the boot of a node depends on, beside DHCP and DNS."""
    return (
        device.ip, device.name, device.image, device.model,
        bool(device.conf.get("mount.persist", True)),
    )


def _fired() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done
