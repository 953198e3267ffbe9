"""What ganesha exports, as values: exports, their numbers, the links that lead to them.

Nodes ask for paths of their own (`/var/lib/walt/nodes/<node>/fs`, `…/persist`: spec
node-protocols §4.5). What they find there are links, in a tree that is exported too: one leads
to an export of the image, for those nodes of a block of addresses that may read it, another to
an export of the node's persistent data, for that node alone. A node that was given another
image follows its link to another export at its next boot, and its present system keeps the
handles of the former one. Handles carry the number of their export: it is changed, never
replaced, when other nodes of the block begin or cease to read the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

from walt.server.adapters.nfs.blocks import block_of, networks_of
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport

NODES = "/var/lib/walt/nodes"  # as nodes see it, whatever the state directory is
EXPORTS = "/var/lib/walt/exports"
FROM_NODE = "../../exports"  # the same, from the directory of a node
LINKS_ID = 1  # the export of the links; 0 is ganesha's root
FIRST_ID, LAST_ID = 2, 65535  # a 16-bit number (ganesha-export-config(8))


@dataclass(frozen=True, slots=True)
class Export:
    """A tree, `path`, for the clients that `clients` tells: addresses or networks, by commas.

    `scope` is what they are all of: a block, a node. `key` tells the export from every other one,
    whoever its clients are.
    """

    path: Path
    scope: str
    clients: str
    writable: bool
    fsid: str
    key: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _key(self.writable, self.scope, self.path))

    def serves(self, ip: str) -> bool:
        """Return whether an address is a client's."""
        return any(
            IPv4Address(ip) in IPv4Network(network) for network in self.clients.split(", ")
        )


def _key(writable: bool, scope: str, path: Path) -> str:
    return f"{'rw' if writable else 'ro'} {scope} {path}"


def _image_export(image: ImageExport, block: str, readers: Iterable[str]) -> Export:
    clients = ", ".join(networks_of(block, readers))
    return Export(image.path, block, clients, False, _filesystem_id(image.image_id))


def _persist_export(node: NodeExport, persist: Path) -> Export:
    fsid = _filesystem_id(f"{node.mac} {persist.name}")
    return Export(persist, node.ip, node.ip, True, fsid)


class Exports(NamedTuple):
    """The exports of a plan by key, and for each node (MAC) what its links lead to."""

    by_key: Mapping[str, Export]
    images: Mapping[str, str]
    persist: Mapping[str, str]


class Followed:
    """The exports of the latest plan, changed by what changed since the one before."""

    def __init__(self) -> None:
        self.by_key: dict[str, Export] = {}
        self._images: dict[str, str] = {}
        self._persist: dict[str, str] = {}
        self._trees: dict[str, ImageExport] = {}  # of images, by id
        self._readers: dict[tuple[str, str], set[str]] = {}  # by id of an image and block
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
            yield from self._read(image_id, self._trees.get(image_id), trees.get(image_id))
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
            export = _persist_export(node, node.persist)
            self._persist[node.mac] = export.key
            self.by_key[export.key] = export

    def _read(
        self, image_id: str, old: ImageExport | None, new: ImageExport | None
    ) -> Iterator[None]:
        """Take who reads an image."""
        if old is new:
            return
        before = frozenset() if old is None else frozenset(old.readers)
        after = frozenset() if new is None else frozenset(new.readers)
        moved = old is not None and new is not None and old.path != new.path
        changed = set()
        for ip in before | after if moved else before ^ after:
            changed.add(block := block_of(ip))
            readers = self._readers.setdefault((image_id, block), set())
            if ip in after:
                readers.add(ip)
            else:
                readers.discard(ip)
            if ip in self._at:
                self.touched.add(self._at[ip])
            yield
        for block in changed:
            if old is not None:
                self.by_key.pop(_key(False, block, old.path), None)
            if readers := self._readers[image_id, block]:
                assert new is not None
                export = _image_export(new, block, readers)
                self.by_key[export.key] = export
            else:
                del self._readers[image_id, block]
            yield

    def _set_image(self, mac: str) -> None:
        self._images.pop(mac, None)
        node = self._nodes.get(mac)
        if node is None or node.image_id is None:
            return
        block = block_of(node.ip)
        if node.ip in self._readers.get((node.image_id, block), ()):
            self._images[mac] = _key(False, block, self._trees[node.image_id].path)


def exports_of(plan: ExportPlan) -> Exports:
    """Return the exports of a plan, derived from nothing."""
    by_key: dict[str, Export] = {}
    by_reader: dict[tuple[str, str], str] = {}
    for image in plan.images:
        for block in {block_of(ip) for ip in image.readers}:
            readers = [ip for ip in image.readers if block_of(ip) == block]
            export = _image_export(image, block, readers)
            by_key[export.key] = export
            by_reader.update(((image.image_id, ip), export.key) for ip in readers)
    images: dict[str, str] = {}
    persist: dict[str, str] = {}
    for node in plan.nodes:
        if node.image_id is not None and (node.image_id, node.ip) in by_reader:
            images[node.mac] = by_reader[node.image_id, node.ip]
        if node.persist is not None:
            export = _persist_export(node, node.persist)
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
    return Export(directory, str(subnet), str(subnet), False, _filesystem_id("links"))
