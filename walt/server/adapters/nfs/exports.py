"""What ganesha exports, as values: exports, their numbers, the links that lead to them.

Nodes ask for paths of their own (`/var/lib/walt/nodes/<node>/fs`, `…/persist`: spec
node-protocols §4.5). What they find there are links, in a tree that is exported too; each
leads to an export for that node alone. An export is never changed, only added and removed:
a node that was given another image follows its link to the new export at its next boot,
and its present system keeps the handles of the former one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport

NODES = "/var/lib/walt/nodes"  # as nodes see it, whatever the state directory is
EXPORTS = "/var/lib/walt/exports"
FROM_NODE = "../../exports"  # the same, from the directory of a node
LINKS_ID = 1  # the export of the links; 0 is ganesha's root
FIRST_ID, LAST_ID = 2, 65535  # a 16-bit number (ganesha-export-config(8))


@dataclass(frozen=True, slots=True)
class Export:
    """A tree, `path`, for the clients that `clients` tells (an address, or a network).

    `key` tells it from every other one.
    """

    path: Path
    clients: str
    writable: bool
    fsid: str
    key: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _key(self.writable, self.clients, self.path))


def _key(writable: bool, clients: str, path: Path) -> str:
    return f"{'rw' if writable else 'ro'} {clients} {path}"


@dataclass(frozen=True)
class Exports:
    """The exports of a plan by key, and for each node (MAC) what its links lead to."""

    by_key: Mapping[str, Export]
    images: Mapping[str, str]
    persist: Mapping[str, str]

    def node_keys(self) -> Mapping[str, str]:
        """Return the node that each export is for."""
        return {key: mac for links in (self.images, self.persist) for mac, key in links.items()}


class Followed:
    """The exports of the latest plan, changed by what changed since the one before."""

    def __init__(self) -> None:
        self.by_key: dict[str, Export] = {}
        self._images: dict[str, str] = {}
        self._persist: dict[str, str] = {}
        self._trees: dict[str, ImageExport] = {}  # of images, by id
        self._nodes: dict[str, NodeExport] = {}
        self._at: dict[str, str] = {}  # MACs of nodes by address
        self.touched: set[str] = set()  # MACs of nodes that may find something else

    @property
    def exports(self) -> Exports:
        """The exports of the latest plan."""
        return Exports(self.by_key, self._images, self._persist)

    @property
    def macs(self) -> Set[str]:
        """The nodes of the latest plan."""
        return self._nodes.keys()

    def node(self, mac: str) -> NodeExport | None:
        """Return a node of the latest plan."""
        return self._nodes.get(mac)

    def take(self, plan: ExportPlan) -> Iterator[None]:
        """Take another plan; who iterates, to the end, may pause."""
        self.touched = set()
        former, self._nodes = self._nodes, {node.mac: node for node in plan.nodes}
        changed = [node for node in plan.nodes if former.get(node.mac) is not node]
        for mac in former.keys() - self._nodes.keys():
            self._leave(former[mac])
        for node in changed:
            if node.mac in former:
                self._leave(former[node.mac])
        for node in changed:
            self._come(node)
            yield
        trees = {image.image_id: image for image in plan.images}
        for image_id in self._trees.keys() | trees.keys():
            yield from self._readers(self._trees.get(image_id), trees.get(image_id))
        self._trees = trees
        for mac in self.touched:
            self._set_image(mac)
            yield

    def _leave(self, node: NodeExport) -> None:
        self.touched.add(node.mac)
        if self._at.get(node.ip) == node.mac:
            del self._at[node.ip]
        if node.persist is not None:
            del self.by_key[self._persist.pop(node.mac)]

    def _come(self, node: NodeExport) -> None:
        self.touched.add(node.mac)
        self._at[node.ip] = node.mac
        if node.persist is not None:
            fsid = _filesystem_id(f"{node.mac} {node.persist.name}")
            export = Export(node.persist, node.ip, True, fsid)
            self._persist[node.mac] = export.key
            self.by_key[export.key] = export

    def _readers(self, old: ImageExport | None, new: ImageExport | None) -> Iterator[None]:
        if old is new:
            return
        before = frozenset() if old is None else frozenset(old.readers)
        after = frozenset() if new is None else frozenset(new.readers)
        kept = before & after if old is not None and new is not None and old.path == new.path \
            else frozenset[str]()
        if old is not None:
            for ip in before - kept:
                del self.by_key[_key(False, ip, old.path)]
                self._touch(ip)
                yield
        if new is not None:
            fsid = _filesystem_id(new.image_id)
            for ip in after - kept:
                export = Export(new.path, ip, False, fsid)
                self.by_key[export.key] = export
                self._touch(ip)
                yield

    def _touch(self, ip: str) -> None:
        if ip in self._at:
            self.touched.add(self._at[ip])

    def _set_image(self, mac: str) -> None:
        self._images.pop(mac, None)
        node = self._nodes.get(mac)
        tree = None if node is None else self._trees.get(node.image_id or "")
        if node is not None and tree is not None:
            export = self.by_key.get(_key(False, node.ip, tree.path))
            if export is not None:
                self._images[mac] = export.key


def exports_of(plan: ExportPlan) -> Exports:
    """Return the exports of a plan, derived from nothing."""
    by_key: dict[str, Export] = {}
    by_reader: dict[tuple[str, str], str] = {}
    for image in plan.images:
        fsid = _filesystem_id(image.image_id)
        for ip in image.readers:
            export = Export(image.path, ip, False, fsid)
            by_key[export.key] = export
            by_reader[image.image_id, ip] = export.key
    images: dict[str, str] = {}
    persist: dict[str, str] = {}
    for node in plan.nodes:
        if node.image_id is not None and (node.image_id, node.ip) in by_reader:
            images[node.mac] = by_reader[node.image_id, node.ip]
        if node.persist is not None:
            export = Export(
                node.persist, node.ip, True, _filesystem_id(f"{node.mac} {node.persist.name}")
            )
            by_key[export.key] = export
            persist[node.mac] = export.key
    return Exports(by_key, images, persist)


class Directory(Mapping[str, str]):
    """The links of a node, by the numbers of the exports that they lead to (None: no link).

    There are thousands: their targets are made when they are asked for.
    """

    __slots__ = ("image", "persist")

    def __init__(self, image: int | None, persist: int | None) -> None:
        self.image = image
        self.persist = persist

    def __getitem__(self, name: str) -> str:
        number = {"fs": self.image, "persist": self.persist}[name]
        if number is None:
            raise KeyError(name)
        return f"{FROM_NODE}/{number}"

    def __iter__(self) -> Iterator[str]:
        if self.image is not None:
            yield "fs"
        if self.persist is not None:
            yield "persist"

    def __len__(self) -> int:
        return (self.image is not None) + (self.persist is not None)


def links_of(
    plan: ExportPlan, exports: Exports, numbers: Mapping[str, int]
) -> Mapping[str, Mapping[str, str]]:
    """Return the tree of links: names and targets of each directory (`""`: the top).

    `numbers` are those of the exports that are in force, by key. A name of a node never
    hides an address.
    """
    links = Links()
    for _ in links.change((), plan.nodes, exports, numbers):
        pass
    return links.tree


class Links:
    """The tree of links, as `links_of` returns it, changed by nodes that changed."""

    def __init__(self) -> None:
        self._top: dict[str, str] = {}
        self.tree: dict[str, Mapping[str, str]] = {"": self._top}
        self._names: dict[str, tuple[str, str]] = {}  # address and name, by MAC

    @property
    def macs(self) -> Set[str]:
        """The nodes that have a directory."""
        return self._names.keys()

    def change(
        self, gone: Iterable[str], nodes: Collection[NodeExport], exports: Exports,
        numbers: Mapping[str, int],
    ) -> Iterator[None]:
        """Have no links for nodes that are gone, by MAC, and those of now for others."""
        top = self._top
        for mac in (*gone, *(node.mac for node in nodes)):
            for name in self._names.pop(mac, ()):
                if top.get(name) == mac:
                    del top[name]
            self.tree.pop(mac, None)
        for node in nodes:
            self.tree[node.mac] = Directory(
                numbers.get(exports.images.get(node.mac, "")),
                numbers.get(exports.persist.get(node.mac, "")),
            )
            self._names[node.mac] = node.ip, node.name
            top[node.ip] = node.mac
            yield
        for node in nodes:
            top.setdefault(node.name, node.mac)


class ExportNumbers:
    """Numbers of exports, stable while the export exists.

    NFS file handles carry the number of their export: it derives from what the export is,
    and stays what it was where that was not free, `known` being those of a former server; they go
    up to `last`.
    """

    def __init__(self, known: Mapping[str, int], last: int = LAST_ID) -> None:
        self._last = last
        self._numbers = dict(known)
        self._taken = set(self._numbers.values())

    def allocate(self, keys: Iterable[str], held: Collection[int] = ()) -> dict[str, int]:
        """Return a number for each key; a clash moves to the next free one.

        Keys of the call before keep their numbers; numbers that have just become free, and
        those of `held`, are not given again: ganesha may still export something under them.
        Raises ValueError when there are more keys than numbers.
        """
        wanted = set(keys)
        for _ in self.change(self._numbers.keys() - wanted, wanted - self._numbers.keys(), held):
            pass
        return dict(self._numbers)

    @property
    def present(self) -> Mapping[str, int]:
        """The numbers of now, by key."""
        return self._numbers

    def change(
        self, gone: Iterable[str], added: Iterable[str], held: Collection[int] = ()
    ) -> Iterator[None]:
        """Give numbers to added keys as `allocate` does, and take those of others."""
        freed = {self._numbers.pop(key) for key in gone}
        try:
            for key in sorted(added):
                number = self._free_number(key, (self._taken, held))
                self._numbers[key] = number
                self._taken.add(number)
                yield
        finally:
            self._taken -= freed

    def _free_number(self, key: str, taken: Sequence[Collection[int]]) -> int:
        count = self._last - FIRST_ID + 1
        digest = hashlib.sha256(key.encode()).digest()
        start = int.from_bytes(digest[:4], "big")
        for step in range(count):
            number = FIRST_ID + (start + step) % count
            if not any(number in numbers for numbers in taken):
                return number
        raise ValueError(f"more than {count} NFS exports")


def _filesystem_id(seed: str) -> str:
    """Return `major.minor`, two 63-bit numbers, stable for `seed`."""
    digest = hashlib.sha256(seed.encode()).digest()
    major, minor = (int.from_bytes(digest[at:at + 8], "big") >> 1 for at in (0, 8))
    return f"{major}.{minor}"


def links_export(directory: Path, subnet: IPv4Network) -> Export:
    """Return the export of the tree of links, for all nodes."""
    return Export(directory, str(subnet), False, _filesystem_id("links"))
