"""From a change of devices or images to nodes that can boot (spec server §4.1, §4.4).

One update is a straight line: mount what nodes are to boot, export it, point the boot
links to it, then unmount what is not used any more. DHCP, DNS and firewall follow at
their own pace. What fails concerns the nodes that need it, and is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.exports import ImageExport
from walt.server.domain.images.interfaces import IImageMounter, INfsExporter
from walt.server.domain.images.mounts import ImageMounts
from walt.server.domain.images.uses import ImageUses, Use
from walt.server.domain.network_services.interfaces import IPersistence, PlatformLines
from walt.server.domain.network_services.node_exports import NodeExports
from walt.server.domain.network_services.publishing import NetworkServices
from walt.server.domain.nodes.interfaces import IProvisioning
from walt.server.domain.nodes.troubles import BootTroubles
from walt.server.domain.retries import Retries
from walt.server.runtime.coroutines import shielded, spawn
from walt.server.runtime.slicing import worked_off
from walt.server.runtime.waiting import Waiters

_log = Logger()

PATIENCE = 20.0  # seconds that a node waits for its persistent data
FEW = 8  # new file systems of persistent data for which the images of other nodes may wait
AT_ONCE = 256  # nodes that are derived from in one turn of the reactor
# Seconds for each device that an update waits for others: a third of it is what one costs, and
# DHCP and the database, for which boards wait first, are to be done.
MERGE_PER_DEVICE = 3e-5


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
        self._mounted: frozenset[Path] | None = None  # None: nobody knows, the server has started
        self._readers: Mapping[str, frozenset[str]] = {}
        self._image_exports: dict[str, ImageExport] = {}
        self._opening: dict[Path, Deferred[None]] = {}
        self._mounts = ImageMounts(clock, mounter)
        self._uses = ImageUses()
        self._exports: Retries[str] = Retries()  # nodes whose exports failed, by MAC
        self._whole: Retries[str] = Retries()  # updates that failed for no known reason
        self._taken_over = False
        self._stopping = False
        self._waiting: Waiters[None] = Waiters()
        self._work: Deferred[None] = succeed(None)
        self._running = False
        self._recheck: Any = None
        self._network_pending: set[Deferred[Any]] = set()
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
        self._network.update(devices=self._registry.present())
        self._node_exports.note(node.mac for node in self._registry.nodes())
        return self.update()

    def _on_change(self, changes: Sequence[Change]) -> None:
        _track(self._network_pending, self._network.update(changes=changes))
        boots = [change.mac for change in changes if _boots_otherwise(*change)]
        if boots:
            self._node_exports.note(boots)
            self.update()

    def update(self) -> Deferred[None]:
        """Bring mounts, exports and links in step with the nodes.

        Requests made while an update runs are merged into one that follows it. Fires
        when an update that began after this call is over; what failed is in `troubles`.
        """
        if self._stopping:
            return succeed(None)
        done = self._waiting.wait()
        if not self._running:
            self._running = True
            self._work = spawn(self._run(), "updates of mounts and exports")
        return done

    async def _run(self) -> None:
        self._cancel_recheck()
        try:
            while self._waiting:
                await self._rest(len(self._registry) * MERGE_PER_DEVICE)
                waiting = self._waiting.taken()
                try:
                    await self._update()
                except Exception as error:
                    _log.failure("an update of mounts and exports failed")
                    self._whole.failed("update", self._clock.seconds(), str(error))
                else:
                    self._whole.succeeded("update")
                waiting.release(None)
        finally:
            self._running = False
            self._plan_recheck()

    def begins(self, mac: str) -> Deferred[None] | None:
        """A node begins to boot: it will mount its persistent data.

        Returns None when that is in force, else a Deferred that fires when it is, when it
        failed, or after PATIENCE.
        """
        node = self._registry.get(mac)
        if node is None or not node.is_node or self._stopping:
            return None
        point = self._node_exports.point(node)
        if point is None:
            return None
        if not self._node_exports.is_open(point):
            self._node_exports.open([point])
            self._opening[point] = opening = self.update()

            def opened(_: None) -> None:
                del self._opening[point]

            opening.addCallback(opened)
        found = self._opening.get(point)
        if found is None:
            return None
        return shielded(found).addTimeout(
            PATIENCE, self._clock, onTimeoutCancel=lambda failure, limit: None
        )

    def begins_at(self, ip: str) -> Deferred[None] | None:
        """The node of an address begins to boot; see `begins`."""
        node = self._registry.by_ip(ip)
        return None if node is None else self.begins(node.mac)

    async def _update(self) -> None:
        if self._stopping:
            return
        now, again = self._clock.seconds(), False
        if not self._taken_over:
            # What a former server mounted is prepared again: this one may be newer.
            self._uses.adopt(await self._mounts.left_overs(), now)
            self._node_exports.open(await self._persistence.made())
            self._taken_over = again = True
        await worked_off(self._clock, self._node_exports.regroup(), AT_ONCE)
        images = self._images.by_id(
            {boots.image for boots in self._node_exports.groups() if boots.image}
        )
        wanted = dict[str, Use | None]()
        uses = self._node_exports.uses(self._mounted_names(images.keys()))
        await worked_off(self._clock, starmap(wanted.__setitem__, uses), AT_ONCE)
        await worked_off(self._clock, self._uses.updating(wanted, now), AT_ONCE)
        await self._rest()
        await self._mounts.mount(
            [images[image_id] for image_id in sorted(images)], again=again
        )
        if self._stopping:
            return
        ids = self._mounts.ids & self._uses.images()
        await self._export(ids)
        if self._stopping:
            return
        await self._link(ids)
        await self._rest()
        self._note_troubles()
        if not self._stopping:
            self._mounts.keep_only(self._uses.images())

    async def _link(self, ids: frozenset[str]) -> None:
        if not self._stopping:
            await self._network.update_links(self._mounted_names(ids))

    async def _rest(self, seconds: float = 0) -> None:
        """Let the reactor do something else between two looks at thousands of nodes."""
        if len(self._registry) > AT_ONCE:
            await deferLater(self._clock, seconds)

    def _readable(self, ids: Iterable[str]) -> list[ImageExport]:
        """Return the exports of mounted images; those that did not change are not made anew."""
        readers, former = self._uses.readers(), self._image_exports
        self._image_exports = {}
        for image_id in ids:
            ips, path = readers.get(image_id, frozenset()), self._mounter.path(image_id)
            export = former.get(image_id)
            if export is None or export.path != path or self._readers.get(image_id) is not ips:
                export = ImageExport(image_id, path, tuple(sorted(ips)))
            self._image_exports[image_id] = export
        self._readers = readers
        return list(self._image_exports.values())

    async def _export(self, ids: frozenset[str]) -> None:
        await worked_off(
            self._clock, self._node_exports.follow(self._mounted_names(ids)), AT_ONCE
        )
        await self._rest()
        readable = self._readable(ids)
        await self._rest()
        plan = self._node_exports.plan(readable)
        wanted = dict(self._node_exports.points)
        new = wanted.keys() - self._mounted if self._mounted is not None else frozenset[Path]()
        if len(new) > FEW:
            # They take long. What nodes boot does not wait for them: their boot scripts do.
            await self._exporter.apply(plan.without_persist({wanted[point] for point in new}))
            if self._stopping:
                return
            await self._link(ids)
        closed = await self._persistence.ensure(wanted)
        if self._stopping:
            return
        self._mounted = frozenset(wanted.keys() - closed.keys())
        failures = {
            wanted[point]: f"its persistent data cannot be mounted: {reason}"
            for point, reason in closed.items()
        }
        await self._rest()
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
        for boots, macs in self._node_exports.groups().items():
            image_id = ids.get(boots.image)
            if image_id is None:
                continue
            if image_id in broken:
                reason = f"its image cannot be mounted: {broken[image_id]}"
            elif not self._mounts.starts(image_id, boots.model):
                reason = (
                    f"its image has nothing that a {boots.model} can start from"
                    f" (/boot/{boots.model})"
                )
            else:
                continue
            found.update(dict.fromkeys(macs, reason))
        self._troubles.of_files(found)

    def _plan_recheck(self) -> None:
        self._cancel_recheck()
        if self._stopping:
            return
        moments = (
            self._uses.next_end(), self._mounts.next_retry(), self._exports.next_due(),
            self._whole.next_due(),
        )
        due = min((moment for moment in moments if moment is not None), default=None)
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

        What an update was mounting at this moment is waited for, what it had still to do is left.
        """
        self._stopping = True
        self._persistence.give_up()
        self._exporter.give_up()
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
    return shielded(DeferredList([shielded(deferred) for deferred in list(pending)]))


def _track(pending: set[Deferred[Any]], deferred: Deferred[Any]) -> None:
    if deferred.called:
        return
    pending.add(deferred)

    def ended(result: Any) -> Any:
        pending.discard(deferred)
        return result

    deferred.addBoth(ended)


def _boots_otherwise(old: Device | None, new: Device | None) -> bool:
    """Tell whether a boot depends on what changed, beside DHCP and DNS."""
    if old is None or new is None or not (old.is_node and new.is_node):
        return any(device is not None and device.is_node for device in (old, new))
    return (
        old.image != new.image or old.ip != new.ip or old.name != new.name
        or old.model != new.model or _persists(old) != _persists(new)
    )


def _persists(device: Device) -> bool:
    return bool(device.conf.get("mount.persist", True))
