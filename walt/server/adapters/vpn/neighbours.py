"""The neighbour table of walt-net, through iproute2."""

from __future__ import annotations

import json

from zope.interface import implementer

from walt.common.names import is_mac
from walt.server.domain.network.addresses import parse_address
from walt.server.domain.vpn.interfaces import INeighbours
from walt.server.runtime.process import ProcessRunner


@implementer(INeighbours)
class Neighbours:
    """Asks the kernel, which had to find out to answer the peer of a connection."""

    def __init__(self, runner: ProcessRunner, interface: str) -> None:
        self._runner = runner
        self._interface = interface

    async def mac_of(self, ip: str) -> str | None:
        """Return the MAC that answers for an address, None if nobody does."""
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
