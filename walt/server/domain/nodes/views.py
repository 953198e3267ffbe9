"""Rows of `walt node show` and `walt device show` (spec user-surface §1.7, §1.11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from walt.common.names import short_image_name
from walt.server.domain.devices.model import NETSETUP_NAT, Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.nodes.ports import INodePower
from walt.server.domain.nodes.status import BootStatus

Tables = dict[str, list[dict[str, Any]]]


def node_type(device: Device) -> str:
    """Return physical, virtual or vpn: one rule for every table (Q-15)."""
    if device.virtual:
        return "virtual"
    return "vpn" if device.vpn_mac else "physical"


def netsetup_name(device: Device) -> str:
    """Return LAN or NAT."""
    return "NAT" if device.netsetup == NETSETUP_NAT else "LAN"


def booted_text(device: Device, status: BootStatus, power: INodePower) -> str:
    """Return what the column `booted` shows."""
    if status.is_booted(device.mac):
        return "yes"
    return "no (powersave)" if power.is_off(device.mac) == "powersave" else "NO"


def node_tables(
    registry: DeviceRegistry, status: BootStatus, power: INodePower, user: str,
    show_all: bool, troubles: Mapping[str, str],
) -> Tables:
    """Return the rows of the caller's nodes, and with `show_all` of the others.

    `troubles` tells why nodes, by MAC, cannot boot at present.
    """
    tables: Tables = {"own": [], "free": [], "others": []}
    nodes = registry.nodes()
    if not show_all:
        nodes = [node for node in nodes if node.owner == user]
    for node in sorted(nodes, key=lambda one: (one.owner or "", one.name)):
        image = node.image or ""
        row: dict[str, Any] = {
            "name": node.name, "type": node_type(node), "model": node.model, "ip": node.ip,
            "netsetup": netsetup_name(node), "booted": booted_text(node, status, power),
            "trouble": troubles.get(node.mac),
        }
        if node.owner == user:
            row["image"] = short_image_name(image)
            tables["own"].append(row)
        elif node.is_free:
            tables["free"].append(row)
        else:
            row["image-owner"] = node.owner
            row["clonable-image-link"] = f"walt:{node.owner}/{short_image_name(image)}"
            tables["others"].append(row)
    return tables


def device_tables(registry: DeviceRegistry) -> Tables:
    """Return the rows of devices of known type, and of unknown ones."""
    tables: Tables = {"known": [], "unknown": []}
    for device in sorted(registry.all(), key=lambda one: (one.type, one.name)):
        shown = f"node ({node_type(device)})" if device.is_node else device.type
        inside = device.type != "server" and device.in_network(registry.subnet)
        row = {
            "name": device.name, "ip": device.ip, "mac": device.mac, "type": shown,
            "netsetup": netsetup_name(device) if inside else None,
        }
        tables["unknown" if device.type == "unknown" else "known"].append(row)
    return tables


# What a node may know of a device, and of its settings: no community of a switch.
NODE_FIELDS = frozenset((
    "mac", "ip", "name", "type", "conf", "in_walt_net", "virtual", "image", "model", "booted",
    "netmask", "gateway", "netsetup",
))
NODE_SETTINGS = frozenset((
    "netsetup", "kexec.allow", "mount.persist", "netconsole", "boot.retries", "boot.timeout", "ram",
    "cpu.cores", "disks", "networks", "boot.delay",
))


def for_nodes(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a record that nodes and virtual hosts may know."""
    shown = {name: value for name, value in found.items() if name in NODE_FIELDS}
    shown["conf"] = {
        name: value for name, value in found["conf"].items() if name in NODE_SETTINGS
    }
    return shown


def record(
    device: Device, registry: DeviceRegistry, is_booted: Callable[[str], bool], server_ip: str
) -> dict[str, Any]:
    """Return the fields of spec server §3.5, plain types only."""
    found: dict[str, Any] = {
        "mac": device.mac, "ip": device.ip, "name": device.name, "type": device.type,
        "conf": dict(device.conf), "in_walt_net": device.in_network(registry.subnet),
    }
    if device.type == "switch":
        found["model"] = device.model
    if device.is_node:
        found.update(
            virtual=device.virtual, image=device.image, model=device.model,
            booted=is_booted(device.mac), netmask=str(registry.subnet.netmask),
            gateway=server_ip if device.netsetup == NETSETUP_NAT else "",
            netsetup=device.netsetup,
        )
    return found
