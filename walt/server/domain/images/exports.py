"""What NFS must export: a comparable plan (spec server §1.3, node-protocols §4.5)."""

from __future__ import annotations
from typing import NamedTuple

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Network
from pathlib import Path
from socket import AF_INET, inet_pton

from walt.common.names import is_device_name, is_mac

IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@lru_cache(maxsize=1 << 16)
def _check_address(ip: str) -> None:
    # There are as many readers as nodes, and most are the same at the next change.
    try:
        inet_pton(AF_INET, ip)
    except OSError:
        raise ValueError(f"not an address: {ip!r}") from None


@dataclass(frozen=True, order=True)
class ImageExport:
    """A mounted image: `image_id` (64 hexadecimal digits), `path` of its tree.

    `readers` are the addresses, sorted, that may read it: nodes that boot it, and those
    that may still run on it.
    """

    image_id: str
    path: Path
    readers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not IMAGE_ID.fullmatch(self.image_id):
            raise ValueError(f"not an image id: {self.image_id!r}")
        for ip in self.readers:
            _check_address(ip)

    @property
    def fsid(self) -> str:
        """The file system identifier seen by nodes: 32 digits, the same after a restart."""
        return self.image_id[:32]


@dataclass(frozen=True, order=True, slots=True)
class NodeExport:
    """What one node may mount.

    `image_id` names the image it boots (None: not mounted); `persist` is its
    read-write directory for the present owner, None when `mount.persist` is false.
    """

    mac: str
    ip: str
    name: str
    image_id: str | None
    persist: Path | None

    def __post_init__(self) -> None:
        _check_address(self.ip)
        if not is_mac(self.mac) or not is_device_name(self.name):
            raise ValueError(f"not a node: {self.mac!r} {self.name!r}")


class ExportPlan(NamedTuple):
    """Everything to export to the nodes of `subnet`."""

    subnet: IPv4Network
    images: tuple[ImageExport, ...] = ()
    nodes: tuple[NodeExport, ...] = ()

    def without_persist(self, macs: Collection[str]) -> ExportPlan:
        """Return the plan without the read-write directories of some nodes."""
        if not macs:
            return self
        return self._replace(nodes=tuple(
            replace(node, persist=None) if node.mac in macs else node for node in self.nodes
        ))
