"""Sets of devices: comma lists of names and keywords (spec server §3.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from walt.common.errors import Invalid, NotFound
from walt.common.names import PLATFORM_USER
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.naming import SERVER_NAME
from walt.server.domain.devices.registry import DeviceRegistry, by_name

MAX_ITEMS = 50_000  # docs/limits.md

KEYWORDS: dict[str, Callable[[Device, str], bool]] = {
    "server": lambda device, user: device.name == SERVER_NAME,
    "my-nodes": lambda device, user: device.is_node and device.owner == user,
    "free-nodes": lambda device, user: device.is_node and device.boots_default,
    "all-nodes": lambda device, user: device.is_node,
    "all-switches": lambda device, user: device.type == "switch",
    "explorable-switches": lambda device, user: (
        device.type == "switch" and bool(device.conf.get("lldp.explore"))
    ),
    "all-devices": lambda device, user: True,
}


@dataclass
class Ownership:
    """The names of a set, split by the owner of the nodes."""

    owned: list[str] = field(default_factory=list)
    free: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    not_nodes: list[str] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)  # of the others

    def add(self, devices: Iterable[Device], user: str) -> None:
        """Take some more devices, as a user sees them."""
        for device in devices:
            if not device.is_node:
                self.not_nodes.append(device.name)
                continue
            owner = device.owner
            if owner == user:
                self.owned.append(device.name)
            elif owner == PLATFORM_USER:
                self.free.append(device.name)
            else:
                self.others.append(device.name)
                self.owners[device.name] = owner or ""


def parse_devices(registry: DeviceRegistry, text: str, user: str) -> list[Device]:
    """Return the devices of a set, sorted by name, without duplicates.

    Raises NotFound for an unknown name, Invalid for an empty set.
    """
    items = text.split(",")
    if len(items) > MAX_ITEMS:
        raise Invalid(f"a set may not have more than {MAX_ITEMS} items")
    found: dict[str, Device] = {}
    for item in items:
        rule = KEYWORDS.get(item)
        if rule is not None:
            found.update((device.mac, device) for device in registry.all() if rule(device, user))
            continue
        device = registry.named(item, KEYWORDS)
        found[device.mac] = device
    if not found:
        raise Invalid(
            f'no device matches "{text[:200]}"; see: walt help show node-ownership'
        )
    return by_name(found.values())


def parse_nodes(registry: DeviceRegistry, text: str, user: str) -> list[Device]:
    """Return the nodes of a set; a member that is not a node is Invalid."""
    devices = parse_devices(registry, text, user)
    for device in devices:
        if not device.is_node:
            raise Invalid(f"{device.name} is not a node, its type is {device.type}")
    return devices


def restricted(
    devices: Iterable[Device], allowed: str, registry: DeviceRegistry, user: str
) -> None:
    """Raise Invalid when a device is outside the set `allowed` (issuers of logs)."""
    try:
        permitted = {device.mac for device in parse_devices(registry, allowed, user)}
    except (NotFound, Invalid):
        permitted = set()
    for device in devices:
        if device.mac not in permitted:
            raise Invalid(f"{device.name} is not allowed here; choose within {allowed}")
