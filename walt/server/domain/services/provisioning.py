"""From a change of devices or images to nodes that can boot (spec server §4.1, §4.4).

Order: mount what is wanted, export it, unmount the rest; then boot links;
DHCP, DNS and firewall follow at their own pace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from zope.interface import implementer

from walt.common.names import is_user_name
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.mounts import MountManager
from walt.server.domain.images.service import ImageService
from walt.server.domain.nodes.ports import IProvisioning
from walt.server.domain.services.service import NetworkServices
from walt.server.runtime.ordered import shielded


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
        owner = node.owner
        if node.conf.get("mount.persist", True) and owner is not None and is_user_name(owner):
            persist = nodes_directory / node.mac / "persist_dirs" / owner
        nodes.append(NodeExport(
            node.mac, node.ip, node.name, mounted.get(node.image or ""), persist
        ))
    images = tuple(sorted(ImageExport(one, path) for one, path in paths.items()))
    return ExportPlan(registry.subnet, images, tuple(sorted(nodes, key=lambda one: one.mac)))


@implementer(IProvisioning)
class Provisioning:
    """Follows the registry: mounts, exports, boot links, then DHCP and DNS.

    `mounter` provides IImageMounter, `exporter` INfsExporter; `clock` gives
    seconds and callLater.
    """

    def __init__(
        self, clock: Any, registry: DeviceRegistry, images: ImageService, mounter: Any,
        exporter: Any, network: NetworkServices, nodes_directory: Path,
    ) -> None:
        self._registry = registry
        self._images = images
        self._mounter = mounter
        self._exporter = exporter
        self._network = network
        self._nodes_directory = nodes_directory
        self.mounts = MountManager(
            clock, mounter, wanted=self._wanted, export=self._export, settled=self._settled
        )
        self._pending: set[Deferred[Any]] = set()
        self._network_pending: set[Deferred[Any]] = set()
        self._boots: dict[str, tuple[Any, ...]] = {}

    def start(self) -> Deferred[None]:
        """Begin to follow the registry, with a first update; fires when it is in force."""
        self._registry.observe(self._on_change)
        self._boots = {node.mac: _boot_key(node) for node in self._registry.nodes()}
        return self.update()

    def _on_change(self, macs: frozenset[str]) -> None:
        _track(self._network_pending, self._network.update(devices=self._registry.all()))
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

    def update(self) -> Deferred[None]:
        """Bring mounts, exports and links in step; fires when they are (failures are logged)."""
        done = self.mounts.update()
        done.addErrback(lambda failure: None)
        _track(self._pending, done)
        return done

    async def _wanted(self) -> Mapping[str, StoredImage]:
        return self._images.by_id({node.image for node in self._registry.nodes() if node.image})

    async def _export(self, ids: frozenset[str]) -> None:
        """Export exactly these mounted images."""
        paths = {one: self._mounter.path(one) for one in ids}
        await self._exporter.apply(
            export_plan(self._registry, self._mounted(ids), paths, self._nodes_directory)
        )

    async def _settled(self, ids: frozenset[str]) -> None:
        # Nodes may have changed although no mount did.
        await self._export(ids)
        await self._network.update_links(self._registry.all(), self._mounted(ids))

    def _mounted(self, ids: frozenset[str]) -> dict[str, str]:
        return {
            image.fullname: image.image_id
            for image in self._images.all() if image.image_id in ids
        }

    async def settled(self) -> None:
        """Return when mounts, exports and links are in step with the registry."""
        while self._pending:
            await _all_of(self._pending)

    async def network_settled(self) -> None:
        """Return when DHCP and DNS know every device, too."""
        await self.settled()
        if self._network_pending:
            await _all_of(self._network_pending)


def _all_of(pending: Iterable[Deferred[Any]]) -> Deferred[Any]:
    # A DeferredList that is cancelled succeeds: who waits for it would go on.
    return shielded(DeferredList([shielded(one) for one in list(pending)]))


def _track(pending: set[Deferred[Any]], one: Deferred[Any]) -> None:
    if one.called:
        return
    pending.add(one)

    def ended(result: Any) -> Any:
        pending.discard(one)
        return result

    one.addBoth(ended)


def _boot_key(device: Device) -> tuple[Any, ...]:
    """Return what the boot of a node depends on, beside DHCP and DNS."""
    return (
        device.ip, device.name, device.image, device.model,
        bool(device.conf.get("mount.persist", True)),
    )

