"""What nodes may mount, and which images they boot: derived from them, changed with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from walt.common.names import is_user_name
from walt.server.domain.devices.derived import Ordered
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.domain.images.uses import Use

_T = TypeVar("_T")


class Boots(NamedTuple):
    """What a node boots: the full name of its image (empty: none), on its model."""

    image: str
    model: str | None


class _Group(NamedTuple):
    boots: Boots
    macs: set[str]


class _OfNodes(Generic[_T]):
    """A value for each node, which derives from the node and the id of the image it boots.

    It is made anew for those nodes alone that were replaced, or whose image has another id.
    """

    def __init__(
        self, registry: DeviceRegistry, derive: Callable[[Device, str | None], _T | None]
    ) -> None:
        self._registry = registry
        self._derive = derive
        self._values: dict[str, _T] = {}  # by MAC
        self._ids: Mapping[str, str] = {}
        self._groups: dict[Boots, _Group] = {}
        self._group: dict[str, _Group] = {}  # by MAC
        self._stale: set[str] = set()
        self._unmoved: set[str] = set()  # those of them whose group is to be looked at

    def regroup(self) -> Iterator[None]:
        """Make the groups what the nodes are; who iterates may pause."""
        while self._unmoved:
            mac = self._unmoved.pop()
            self._move(mac, self._node(mac))
            yield

    def groups(self) -> Mapping[Boots, Collection[str]]:
        """Return the MACs of nodes by what they boot."""
        for _ in self.regroup():
            pass
        return {boots: group.macs for boots, group in self._groups.items()}

    def _node(self, mac: str) -> Device | None:
        device = self._registry.get(mac)  # a MAC of a VPN counts there
        return device if device is not None and device.mac == mac and device.is_node else None

    def note(self, macs: Iterable[str]) -> None:
        """Take the MACs of devices that changed."""
        macs = frozenset(macs)
        self._stale |= macs
        self._unmoved |= macs

    def follow(self, ids: Mapping[str, str]) -> Iterator[tuple[str, _T | None, _T | None]]:
        """Yield of each value that changed its MAC, what it was and what it is.

        `ids` gives the id of images by their full names; who iterates may pause.
        """
        before, self._ids = self._ids, dict(ids)
        for boots, group in self._groups.items():
            if before.get(boots.image) != ids.get(boots.image):
                self._stale.update(group.macs)
        while self._stale:
            mac = self._stale.pop()
            node = self._node(mac)
            self._unmoved.discard(mac)
            self._move(mac, node)
            new = None
            if node is not None:
                new = self._derive(node, self._ids.get(node.image or ""))
            old = self._values.pop(mac, None)
            if new is not None:
                self._values[mac] = new
            if old != new:
                yield mac, old, new

    def _move(self, mac: str, node: Device | None) -> None:
        former = self._group.pop(mac, None)
        boots = None if node is None else Boots(node.image or "", node.model)
        if former is not None and former.boots != boots:
            former.macs.discard(mac)
            if not former.macs:
                del self._groups[former.boots]
        if boots is not None:
            group = self._groups.setdefault(boots, _Group(boots, set()))
            group.macs.add(mac)
            self._group[mac] = group


class NodeExports:
    """What nodes may mount, changed by the nodes that changed and by mounted images.

    Persistent data is wanted since a node began to boot, for the owner whom it had then, and
    where it is there already: most nodes of a large platform wait for their first boot.
    """

    def __init__(self, registry: DeviceRegistry, nodes_directory: Path) -> None:
        self._registry = registry
        self._directory = nodes_directory
        self._exports: _OfNodes[NodeExport] = _OfNodes(registry, self._export)
        self._uses: _OfNodes[Use] = _OfNodes(registry, self._use)
        self._sorted: Ordered[str, NodeExport] = Ordered()
        self._points: dict[Path, str] = {}
        self._open: set[Path] = set()

    # -- persistent data ---------------------------------------------------------

    def point(self, node: Device) -> Path | None:
        """Return the place of the persistent data of a node and its owner, None if it has none."""
        owner = node.owner
        if not node.conf.get("mount.persist", True) or owner is None or not is_user_name(owner):
            return None
        return self._directory / node.mac / "persist_dirs" / owner

    def is_open(self, point: Path) -> bool:
        """Tell whether the data of this place is wanted."""
        return point in self._open or point.parent.parent in self._open

    def open(self, points: Iterable[Path]) -> None:
        """Want the data of these places from now on; see IPersistence.made."""
        for point in points:
            if point.parent.name == "persist_dirs":
                self._exports.note([point.parent.parent.name])
            else:
                self._exports.note([point.name])
            self._open.add(point)

    @property
    def points(self) -> Mapping[Path, str]:
        """The places of the data that is wanted, and the MACs of their nodes."""
        return self._points

    # -- what derives --------------------------------------------------------------

    def note(self, macs: Iterable[str]) -> None:
        """Take the MACs of devices that changed."""
        macs = list(macs)
        self._exports.note(macs)
        self._uses.note(macs)

    def regroup(self) -> Iterator[None]:
        """Prepare `groups`; who iterates may pause."""
        return self._uses.regroup()

    def groups(self) -> Mapping[Boots, Collection[str]]:
        """Return the MACs of nodes by what they boot."""
        return self._uses.groups()

    def _export(self, node: Device, image_id: str | None) -> NodeExport | None:
        if node.ip is None or not node.in_network(self._registry.subnet):
            return None
        point = self.point(node)
        if point is not None and not self.is_open(point):
            point = None
        return NodeExport(node.mac, node.ip, node.name, image_id, point)

    def _use(self, node: Device, image_id: str | None) -> Use | None:
        if image_id is None:
            return None
        ip = node.ip if node.in_network(self._registry.subnet) else None
        return Use(image_id, node.mac, ip)

    def follow(self, ids: Mapping[str, str]) -> Iterator[None]:
        """Have in `plan` what the ids of mounted images, by full name, make of nodes."""
        for mac, old, new in self._exports.follow(ids):
            if old is not None and old.persist is not None:
                self._points.pop(old.persist, None)
            if new is None:
                self._sorted.drop(mac)
            else:
                self._sorted.add(mac, new)
                if new.persist is not None:
                    self._points[new.persist] = mac
            yield

    def plan(self, images: Iterable[ImageExport]) -> ExportPlan:
        """Return what NFS must export, with the exports of images."""
        return ExportPlan(self._registry.subnet, tuple(sorted(images)), tuple(self._sorted))

    def uses(self, ids: Mapping[str, str]) -> Iterator[tuple[str, Use | None]]:
        """Yield what nodes, by MAC, boot now where that changed; `ids` gives images by name."""
        for mac, _, new in self._uses.follow(ids):
            yield mac, new


def export_plan(
    registry: DeviceRegistry, ids: Mapping[str, str], images: Iterable[ImageExport],
    nodes_directory: Path, opened: Iterable[Path] = (),
) -> ExportPlan:
    """Return what NFS must export, derived from nothing; see NodeExports."""
    exports = NodeExports(registry, nodes_directory)
    exports.note(node.mac for node in registry.nodes())
    exports.open(opened)
    for _ in exports.follow(ids):
        pass
    return exports.plan(images)
