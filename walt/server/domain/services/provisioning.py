"""From a change of devices or images to nodes that can boot (spec server §4.1, §4.4).

One update is a straight line: mount what nodes are to boot, export it, point the boot
links to it, then unmount what is not used any more. DHCP, DNS and firewall follow at
their own pace. What fails concerns the nodes that need it, and is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.names import is_user_name
from walt.server.domain.devices.derived import Derived
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.domain.images.mounts import ImageMounts
from walt.server.domain.images.ports import IImageMounter, INfsExporter
from walt.server.domain.images.service import ImageService
from walt.server.domain.images.uses import ImageUses, Use
from walt.server.domain.nodes.ports import IProvisioning
from walt.server.domain.nodes.troubles import BootTroubles
from walt.server.domain.retries import Retries
from walt.server.domain.services.ports import IPersistence, PlatformLines
from walt.server.domain.services.service import NetworkServices
from walt.server.runtime.ordered import shielded, spawn

_log = Logger()


class NodeExports:
    """What nodes may mount, derived again after each change of nodes or mounted images.

    It is made anew for those nodes alone that were replaced, or whose image was mounted.
    """

    def __init__(self, registry: DeviceRegistry, nodes_directory: Path) -> None:
        self._registry = registry
        self._directory = nodes_directory
        self._exports = Derived(self._export)
        self._uses = Derived(self._use)

    def _export(self, node: Device, image_id: str | None) -> NodeExport | None:
        if node.ip is None or not node.in_network(self._registry.subnet):
            return None
        persist = None
        owner = node.owner
        if node.conf.get("mount.persist", True) and owner is not None and is_user_name(owner):
            persist = self._directory / node.mac / "persist_dirs" / owner
        return NodeExport(node.mac, node.ip, node.name, image_id, persist)

    def _use(self, node: Device, image_id: str) -> Use:
        ip = node.ip if node.in_network(self._registry.subnet) else None
        return Use(image_id, node.mac, ip)

    def plan(self, ids: Mapping[str, str], images: Iterable[ImageExport]) -> ExportPlan:
        """Return what NFS must export.

        `ids` gives the id of each mounted image by its full name, `images` their exports.
        """
        known = self._registry.nodes()
        found = self._exports.of(known, [ids.get(node.image or "") for node in known])
        nodes = [one for one in found if one is not None]
        nodes.sort(key=attrgetter("mac"))
        return ExportPlan(self._registry.subnet, tuple(sorted(images)), tuple(nodes))

    def uses(self, ids: Mapping[str, str]) -> list[Use]:
        """Return which node boots which image, `ids` giving images by their full names."""
        nodes = [node for node in self._registry.nodes() if (node.image or "") in ids]
        return self._uses.of(nodes, [ids[node.image or ""] for node in nodes])


def export_plan(
    registry: DeviceRegistry, ids: Mapping[str, str], images: Iterable[ImageExport],
    nodes_directory: Path,
) -> ExportPlan:
    """Return what NFS must export; see NodeExports.plan."""
    return NodeExports(registry, nodes_directory).plan(ids, images)


@implementer(IProvisioning)
class Provisioning:
    """Follows the registry: mounts, exports, boot links, then DHCP and DNS.

    `clock` gives seconds and callLater. Nodes that cannot boot are told to `platform`.
    """

    def __init__(
        self, clock: IReactorTime, registry: DeviceRegistry, images: ImageService,
        mounter: IImageMounter, exporter: INfsExporter, persistence: IPersistence,
        network: NetworkServices, platform: PlatformLines, nodes_directory: Path,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._images = images
        self._mounter = mounter
        self._exporter = exporter
        self._persistence = persistence
        self._network = network
        self._node_exports = NodeExports(registry, nodes_directory)
        self._mounts = ImageMounts(clock, mounter)
        self._uses = ImageUses()
        self._exports: Retries[str] = Retries()  # nodes whose exports failed, by MAC
        self._whole: Retries[str] = Retries()  # updates that failed for no known reason
        self._taken_over = False
        self._stopping = False
        self._waiting: list[Deferred[None]] = []
        self._work: Deferred[None] = succeed(None)
        self._running = False
        self._recheck: Any = None
        self._network_pending: set[Deferred[Any]] = set()
        self._boots: dict[str, tuple[Any, ...]] = {}
        self._troubles = BootTroubles(clock, registry, platform)

    @property
    def troubles(self) -> Mapping[str, str]:
        """Why nodes, by MAC, cannot boot at present; each is tried again by itself."""
        return self._troubles.current()

    def lasting(self) -> Mapping[str, str]:
        """Return the troubles that do not go by themselves; see IProvisioning."""
        return self._troubles.lasting()

    def machine_trouble(self, mac: str, reason: str | None) -> None:
        """Take why the machine of a node does not start, None when it does."""
        self._troubles.of_machine(mac, reason)

    # -- updates ------------------------------------------------------------

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
        """Bring mounts, exports and links in step with the nodes.

        Requests made while an update runs are merged into one that follows it. Fires
        when an update that began after this call is over; what failed is in `troubles`.
        """
        done: Deferred[None] = Deferred()
        if self._stopping:
            done.callback(None)
            return done
        self._waiting.append(done)
        if not self._running:
            self._running = True
            self._work = spawn(self._run(), "updates of mounts and exports")
        return done

    async def _run(self) -> None:
        self._cancel_recheck()
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                try:
                    await self._update()
                except Exception as error:
                    _log.failure("an update of mounts and exports failed")
                    self._whole.failed("update", self._clock.seconds(), str(error))
                else:
                    self._whole.succeeded("update")
                for one in waiting:
                    one.callback(None)
        finally:
            self._running = False
            self._plan_recheck()

    async def _update(self) -> None:
        now, again = self._clock.seconds(), False
        if not self._taken_over:
            # What a former server mounted is prepared again: this one may be newer.
            self._uses.adopt(await self._mounts.left_overs(), now)
            self._taken_over = again = True
        images = self._images.by_id({
            node.image for node in self._registry.nodes() if node.image
        })
        self._uses.update(self._wanted_uses(images), now)
        await self._mounts.mount(
            [images[image_id] for image_id in sorted(images)], again=again
        )
        if self._stopping:
            return
        ids = self._mounts.ids & self._uses.images()
        await self._export(ids)
        if self._stopping:
            return
        await self._network.update_links(self._registry.all(), self._mounted_names(ids))
        self._note_troubles()
        if not self._stopping:
            self._mounts.keep_only(self._uses.images())

    def _wanted_uses(self, images: Mapping[str, Any]) -> list[Use]:
        return self._node_exports.uses(self._mounted_names(images.keys()))

    async def _export(self, ids: frozenset[str]) -> None:
        readers = self._uses.readers()
        exports = [
            ImageExport(one, self._mounter.path(one), tuple(sorted(readers.get(one, ()))))
            for one in ids
        ]
        plan = self._node_exports.plan(self._mounted_names(ids), exports)
        wanted = {node.persist: node.mac for node in plan.nodes if node.persist is not None}
        closed = await self._persistence.ensure(wanted)
        failures = {
            wanted[point]: f"its persistent data cannot be mounted: {reason}"
            for point, reason in closed.items()
        }
        failures |= await self._exporter.apply(plan.without_persist(failures))
        await self._persistence.keep_only(wanted)
        now = self._clock.seconds()
        for mac in self._exports.reasons.keys() - failures.keys():
            self._exports.succeeded(mac)
        for mac, reason in failures.items():
            self._exports.failed(mac, now, reason)

    def _mounted_names(self, ids: Iterable[str]) -> dict[str, str]:
        wanted = frozenset(ids)
        return {
            image.fullname: image.image_id
            for image in self._images.all() if image.image_id in wanted
        }

    # -- failures -----------------------------------------------------------

    def _note_troubles(self) -> None:
        found = dict(self._exports.reasons)
        broken = self._mounts.troubles
        ids = self._mounted_names(broken.keys() | self._mounts.ids)
        for node in self._registry.nodes():
            image_id = ids.get(node.image or "")
            if image_id is None:
                continue
            if image_id in broken:
                found[node.mac] = f"its image cannot be mounted: {broken[image_id]}"
            elif not self._mounts.starts(image_id, node.model):
                found[node.mac] = (
                    f"its image has nothing that a {node.model} can start from"
                    f" (/boot/{node.model})"
                )
        self._troubles.of_files(found)

    def _plan_recheck(self) -> None:
        self._cancel_recheck()
        if self._stopping:
            return
        moments = (
            self._uses.next_end(), self._mounts.next_retry(), self._exports.next_due(),
            self._whole.next_due(),
        )
        due = min((one for one in moments if one is not None), default=None)
        if due is not None:
            self._recheck = self._clock.callLater(
                max(0.0, due - self._clock.seconds()), self.update
            )

    def _cancel_recheck(self) -> None:
        if self._recheck is not None and self._recheck.active():
            self._recheck.cancel()
        self._recheck = None

    # -- who waits ----------------------------------------------------------

    async def settled(self) -> None:
        """Return when mounts, exports and links are in step with the registry."""
        while self._running:
            await shielded(self._work)

    async def network_settled(self) -> None:
        """Return when DHCP and DNS know every device, too."""
        await self.settled()
        if self._network_pending:
            await _all_of(self._network_pending)

    # -- stop ---------------------------------------------------------------

    async def suspend(self) -> None:
        """Change nothing any more: the server stops, mounts and nodes stay as they are.

        What an update was mounting at this moment is waited for.
        """
        self._stopping = True
        self._cancel_recheck()
        await self._mounts.stop()
        await shielded(self._work)

    async def withdraw(self) -> None:
        """Export nothing and unmount every image: an orderly stop for good."""
        await self.suspend()
        await self._exporter.withdraw()
        await self._persistence.keep_only(())
        await self._mounts.unmount_all()


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
        device.ip, device.name, device.image, device.model, device.owner,
        bool(device.conf.get("mount.persist", True)),
    )
