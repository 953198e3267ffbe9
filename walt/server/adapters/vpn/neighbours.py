"""Who is where in walt-net: its neighbour table and its bridge, through iproute2."""

from __future__ import annotations

import json

from zope.interface import implementer

from walt.common.names import is_mac
from walt.server.domain.network.addresses import parse_address
from walt.server.domain.vpn.interfaces import INeighbours
from walt.server.domain.vpn.model import Neighbour
from walt.server.runtime.process import ProcessRunner


@implementer(INeighbours)
class Neighbours:
    """Asks the kernel, which had to find out to answer the peer of a connection."""

    def __init__(self, runner: ProcessRunner, interface: str) -> None:
        self._runner = runner
        self._interface = interface

    async def find(self, ip: str) -> Neighbour | None:
        """Return who answers for an address, None if nobody does."""
        mac = await self._mac_of(ip)
        interface = None if mac is None else await self._interface_of(mac)
        return None if mac is None or interface is None else Neighbour(mac, interface)

    async def _mac_of(self, ip: str) -> str | None:
        address = parse_address(ip)
        if address is None:
            return None
        shown = await self._runner.run([
            "ip", "-json", "neighbour", "show", "to", str(address), "dev", self._interface,
        ], timeout=10.0)
        for row in json.loads(shown.stdout or b"[]"):
            mac = str(row.get("lladdr", "")).lower()
            if is_mac(mac):
                return mac
        return None

    async def _interface_of(self, mac: str) -> str | None:
        """Return where the bridge has seen a MAC last, None if nowhere (bridge(8))."""
        shown = await self._runner.run(
            ["bridge", "-json", "fdb", "get", mac, "br", self._interface],
            timeout=10.0, check=False,
        )
        rows = json.loads(shown.stdout or b"[]") if shown.status == 0 else []
        for row in rows:
            # MACs of the bridge's own interfaces are permanent: no neighbour has one.
            if row.get("master") == self._interface and row.get("state") != "permanent":
                return str(row["ifname"])
        return None
