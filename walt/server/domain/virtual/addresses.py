"""MACs and addresses of virtual nodes (spec server §3.10)."""

from __future__ import annotations

from ipaddress import IPv4Address
from random import Random

from zope.interface import implementer

from walt.common.errors import Conflict
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.virtual.interfaces import IAddresses


@implementer(IAddresses)
class FreeAddresses:
    """Looks into the registry for what is not used."""

    def __init__(
        self, registry: DeviceRegistry, server_ip: IPv4Address, source: Random
    ) -> None:
        self._registry = registry
        self._server_ip = server_ip
        self._source = source

    def lowest_free_ip(self) -> str:
        """Return the lowest free host address of walt-net."""
        for address in self._registry.subnet.hosts():
            ip = str(address)
            if address != self._server_ip and self._registry.by_ip(ip) is None:
                return ip
        raise Conflict(
            f"no address of {self._registry.subnet} is left; forget devices that are gone"
            " (walt device forget)"
        )

    def new_mac(self) -> str:
        """Return an unused MAC starting with 52:54:00."""
        while True:
            tail = (self._source.randrange(0x100) for _ in range(3))
            mac = "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)
            if self._registry.get(mac) is None:
                return mac
