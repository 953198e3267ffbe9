"""What ganesha exports, as values: exports, their numbers, the links that lead to them.

Nodes ask for paths of their own (`/var/lib/walt/nodes/<node>/fs`, `…/persist`: spec
node-protocols §4.5). What they find there are links, in a tree that is exported too; each
leads to an export for that node alone. An export is never changed, only added and removed:
a node that was given another image follows its link to the new export at its next boot,
and its present system keeps the handles of the former one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from walt.server.domain.images.exports import ExportPlan

NODES = "/var/lib/walt/nodes"  # as nodes see it, whatever the state directory is
EXPORTS = "/var/lib/walt/exports"
FROM_NODE = "../../exports"  # the same, from the directory of a node
LINKS_ID = 1  # the export of the links; 0 is ganesha's root
FIRST_ID, LAST_ID = 2, 65535  # a 16-bit number (ganesha-export-config(8))


@dataclass(frozen=True)
class Export:
    """A tree, `path`, for the clients that `clients` tells (an address, or a network)."""

    path: Path
    clients: str
    writable: bool
    fsid: str

    @property
    def key(self) -> str:
        """What tells it from every other one."""
        return _key(self.writable, self.clients, self.path)


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


def exports_of(plan: ExportPlan, former: Mapping[str, Export] | None = None) -> Exports:
    """Return the exports of a plan; those of a `former` one, by key, are not made anew."""
    former = {} if former is None else former
    by_key: dict[str, Export] = {}
    by_reader: dict[tuple[str, str], str] = {}
    for image in plan.images:
        fsid = _filesystem_id(image.image_id)
        for ip in image.readers:
            key = _key(False, ip, image.path)
            by_key[key] = former.get(key) or Export(image.path, ip, False, fsid)
            by_reader[image.image_id, ip] = key
    images: dict[str, str] = {}
    persist: dict[str, str] = {}
    for node in plan.nodes:
        if node.image_id is not None and (node.image_id, node.ip) in by_reader:
            images[node.mac] = by_reader[node.image_id, node.ip]
        if node.persist is not None:
            key = _key(True, node.ip, node.persist)
            by_key[key] = former.get(key) or Export(
                node.persist, node.ip, True, _filesystem_id(f"{node.mac} {node.persist.name}")
            )
            persist[node.mac] = key
    return Exports(by_key, images, persist)


def links_of(
    plan: ExportPlan, exports: Exports, numbers: Mapping[str, int]
) -> dict[str, dict[str, str]]:
    """Return the tree of links: names and targets of each directory (`""`: the top).

    `numbers` are those of the exports that are in force, by key. A name of a node never
    hides an address.
    """
    tree: dict[str, dict[str, str]] = {"": {}}
    for node in plan.nodes:
        links = {}
        for name, keys in (("fs", exports.images), ("persist", exports.persist)):
            number = numbers.get(keys.get(node.mac, ""))
            if number is not None:
                links[name] = f"{FROM_NODE}/{number}"
        tree[node.mac] = links
        tree[""][node.ip] = node.mac
    for node in plan.nodes:
        tree[""].setdefault(node.name, node.mac)
    return tree


class ExportNumbers:
    """Numbers of exports, stable while the export exists.

    NFS file handles carry the number of their export: it derives from what the export is,
    and stays what it was where that was not free, `known` being those of a former server.
    """

    def __init__(self, known: Mapping[str, int]) -> None:
        self._numbers = dict(known)

    def allocate(self, keys: Iterable[str], held: Collection[int] = ()) -> dict[str, int]:
        """Return a number for each key; a clash moves to the next free one.

        Keys of the call before keep their numbers; numbers that have just become free, and
        those of `held`, are not given again: ganesha may still export something under them.
        Raises ValueError when there are more keys than numbers.
        """
        wanted = set(keys)
        found = {key: number for key, number in self._numbers.items() if key in wanted}
        taken = {*self._numbers.values(), *held}
        for key in sorted(wanted - found.keys()):
            found[key] = _free_number(key, taken)
            taken.add(found[key])
        self._numbers = found
        return found


def _free_number(key: str, taken: Collection[int]) -> int:
    count = LAST_ID - FIRST_ID + 1
    digest = hashlib.sha256(key.encode()).digest()
    start = int.from_bytes(digest[:4], "big")
    for step in range(count):
        number = FIRST_ID + (start + step) % count
        if number not in taken:
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
