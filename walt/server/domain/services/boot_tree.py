"""What has to be in the tree of node directories, as pure values (spec server §1.3).

Paths are relative to the tree (`<state-dir>/nodes`). A MAC names the real
directory of a node; the MAC with dashes, the address and the name are links.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface

from walt.common.names import is_device_name, is_mac, is_model, is_user_name
from walt.server.domain.devices.model import Device
from walt.server.domain.network.addresses import AddressPlan

PROBING = "probing"
STATIC = "../../tftp-static"
FORBIDDEN = "forbidden_dir"
WIDEST_PROBING = 20  # prefix length: no links for free addresses of a wider network
# Kept when a tree is reset, and moved when a layout is obsolete.
PRESERVED = frozenset({"persist_dirs", "persist_dir", "volumes", "disks", "networks"})
_IMAGE_ID = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class BootTree:
    """The wanted directories and links.

    `dirs` disappear with all they hold when they are not wanted any more;
    `kept` are only ever created (persistent data); `owners` gives the owner to
    whom an obsolete persistent directory of a node is moved.
    """

    dirs: frozenset[str] = frozenset()
    links: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    owners: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """How to get from one tree to another, in the order of the fields."""

    drop_links: tuple[str, ...] = ()
    drop_dirs: tuple[str, ...] = ()
    make_dirs: tuple[str, ...] = ()
    set_links: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.drop_links or self.drop_dirs or self.make_dirs or self.set_links)


def probing_possible(interface: IPv4Interface) -> bool:
    """Tell whether free addresses of this network get links (design §8, Loader)."""
    return interface.network.prefixlen >= WIDEST_PROBING


def _node_links(device: Device, mounts: Mapping[str, str], stopping: bool) -> dict[str, str]:
    mac, owner = device.mac, device.owner
    links = {}
    image_id = mounts.get(device.image or "")
    mounted = (
        image_id is not None and _IMAGE_ID.fullmatch(image_id) is not None
        and device.model is not None and is_model(device.model)
    )
    if mounted:
        links[f"{mac}/fs"] = f"../../images/{image_id}/fs"
    if mounted and not stopping:
        links[f"{mac}/tftp"] = f"../../images/{image_id}/fs/boot/{device.model}"
    else:
        links[f"{mac}/tftp"] = STATIC  # boards loop there instead of hanging
    if device.conf.get("mount.persist", True) and owner is not None and is_user_name(owner):
        links[f"{mac}/persist"] = f"persist_dirs/{owner}"
    else:
        links[f"{mac}/persist"] = FORBIDDEN  # never exists: the mount fails on the node
    return links


def _aliases(devices: list[Device], target: str | None = None) -> dict[str, str]:
    """Return the aliases of devices: addresses first, a name never hides one of them."""
    links: dict[str, str] = {}
    for device in devices:
        where = target or device.mac
        links[device.mac.replace(":", "-")] = where
        if device.ip is not None:
            links[device.ip] = where
        if target is not None:
            links[device.mac] = where
    for device in devices:
        if is_device_name(device.name) and device.name != PROBING:
            links.setdefault(device.name, target or device.mac)
    return links


def boot_tree(
    interface: IPv4Interface, devices: Iterable[Device], mounts: Mapping[str, str], *,
    stopping: bool = False,
) -> BootTree:
    """Return the wanted tree.

    `mounts` gives the id of each mounted image by its full name; `stopping`
    is true at an orderly stop of the server (boards then loop on tftp-static).
    """
    devices = [device for device in devices if is_mac(device.mac)]
    plan = AddressPlan(interface, (device.ip for device in devices if device.ip is not None))
    inside = [d for d in devices if d.ip is not None and plan.contains(d.ip)]
    nodes = sorted((d for d in inside if d.is_node), key=lambda d: d.mac)
    boards = [d for d in inside if d.type == "unknown" and d.is_raspberry_pi]

    links: dict[str, str] = {}
    if probing_possible(interface):
        links.update((ip, PROBING) for ip in plan.free_addresses())
    links.update(_aliases(boards, PROBING))
    links.update(_aliases(nodes))
    links[f"{PROBING}/tftp"] = STATIC
    kept, owners = set(), {}
    for node in nodes:
        links.update(_node_links(node, mounts, stopping))
        kept.add(f"{node.mac}/persist_dirs")
        if node.owner is not None and is_user_name(node.owner):
            owners[node.mac] = node.owner
            kept.add(f"{node.mac}/persist_dirs/{node.owner}")
    dirs = frozenset({PROBING, *(node.mac for node in nodes)})
    return BootTree(dirs, links, frozenset(kept), owners)


def difference(old: BootTree, new: BootTree) -> Change:
    """Return what to do when the disk holds `old` and `new` is wanted.

    Links go before directories, directories come before links; a link that
    only changes its target is replaced, never absent.
    """
    gone = old.dirs - new.dirs
    inside_gone = {
        link for link in old.links if "/" in link and link.split("/", 1)[0] in gone
    }
    return Change(
        tuple(sorted(link for link in old.links.keys() - new.links.keys() - inside_gone)),
        tuple(sorted(gone)),
        (*sorted(new.dirs - old.dirs), *sorted(new.kept - old.kept)),
        tuple(sorted(
            (link, target) for link, target in new.links.items() if old.links.get(link) != target
        )),
    )
