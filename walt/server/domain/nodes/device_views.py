"""Devices as programs get them (spec user-surface §1.11, server §3.5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime

from walt.server.domain.devices.model import NETSETUP_NAT, Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.settings import HIDDEN, SECRETS
from walt.server.domain.nodes.views import AT_ONCE, netsetup_name, node_type
from walt.server.runtime.slicing import worked_off

# What a node may know of a device, and of its settings: no community of a switch.
NODE_FIELDS = frozenset((
    "mac", "ip", "name", "type", "conf", "in_walt_net", "virtual", "image", "model", "booted",
    "netmask", "gateway", "netsetup",
))
NODE_SETTINGS = frozenset((
    "netsetup", "kexec.allow", "mount.persist", "netconsole", "boot.retries", "boot.timeout", "ram",
    "cpu.cores", "disks", "networks", "boot.delay",
))


class DeviceViews:
    """Rows of `walt device show`, and the records of devices.

    `is_booted` tells it of a MAC; `where` returns the switch and the port of one; `server_ip`
    is the gateway of the nodes that have one; `clock` gives callLater.
    """

    def __init__(
        self, registry: DeviceRegistry, is_booted: Callable[[str], bool],
        where: Callable[[str], Mapping[str, object]], server_ip: str, clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._is_booted = is_booted
        self._where = where
        self._server_ip = server_ip
        self._clock = clock

    async def tables(self) -> str:
        """Return devices of known type, and unknown ones: JSON, an object of two lists.

        Many rows are made in several turns of the reactor.
        """
        tables: dict[str, list[str]] = {"known": [], "unknown": []}
        devices = sorted(self._registry.all(), key=lambda device: (device.type, device.name))

        def write(device: Device) -> None:
            table = tables["unknown" if device.type == "unknown" else "known"]
            table.append(json.dumps(self._row(device)))

        await worked_off(self._clock, map(write, devices), AT_ONCE)
        written = (f'"{kind}": [{", ".join(rows)}]' for kind, rows in tables.items())
        return f"{{{', '.join(written)}}}"

    def _row(self, device: Device) -> dict[str, Any]:
        inside = device.type != "server" and device.in_network(self._registry.subnet)
        return {
            "name": device.name, "ip": device.ip, "mac": device.mac, "type": device.type,
            "node_type": node_type(device) if device.is_node else None,
            "netsetup": netsetup_name(device) if inside else None, **self._where(device.mac),
        }

    def named(self, name: str) -> dict[str, Any]:
        """Return the record of the device of this name. Raises NotFound."""
        return self.record(self._registry.named(name))

    def for_nodes(self, mac: str) -> dict[str, Any] | None:
        """Return what nodes and virtual hosts may know of a device; None if it is unknown."""
        device = self._registry.get(mac)
        if device is None:
            return None
        found = self.record(device)
        shown = {name: value for name, value in found.items() if name in NODE_FIELDS}
        shown["conf"] = {
            name: value for name, value in found["conf"].items() if name in NODE_SETTINGS
        }
        return shown

    def record(self, device: Device) -> dict[str, Any]:
        """Return the fields of spec server §3.5, plain types only."""
        found: dict[str, Any] = {
            "mac": device.mac, "ip": device.ip, "name": device.name, "type": device.type,
            "conf": {
                name: HIDDEN if name in SECRETS else value for name, value in device.conf.items()
            },
            "in_walt_net": device.in_network(self._registry.subnet),
        }
        if device.type == "switch":
            found["model"] = device.model
        if device.is_node:
            found.update(
                virtual=device.virtual, image=device.image, model=device.model,
                booted=self._is_booted(device.mac), netmask=str(self._registry.subnet.netmask),
                gateway=self._server_ip if device.netsetup == NETSETUP_NAT else "",
                netsetup=device.netsetup,
            )
        return found
