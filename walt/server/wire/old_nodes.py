"""The calls of old images, VPN nodes and old tools (spec node-protocols §7, server §7.4)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime

from walt.common.errors import Conflict, Invalid, NotFound
from walt.common.leases import Sighting
from walt.common.names import is_mac
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.nodes.announcements import Announcements
from walt.server.domain.nodes.clock import next_whole_second
from walt.server.domain.nodes.device_views import DeviceViews
from walt.server.domain.nodes.keys import UserKeys
from walt.server.domain.nodes.neighbours import MAX_LABEL, NeighbourReports
from walt.server.domain.vpn.enrolment import VpnNodes
from walt.server.wire.legacy import Apis
from walt.server.wire.peers import plain_address

MAX_TEXT = 1024


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_TEXT or "\0" in value:
        raise Invalid("expected a short text")
    return value


def _mac(value: Any) -> str:
    mac = _text(value).lower()
    if not is_mac(mac):
        raise Invalid("expected a MAC address")
    return mac


class OldNodes:
    """Legacy calls, translated to the same domain services as AMP."""

    def __init__(
        self, registry: DeviceRegistry, announcements: Announcements,
        neighbours: NeighbourReports, views: DeviceViews, keys: UserKeys, vpn: VpnNodes,
        clock: IReactorTime, now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._announcements = announcements
        self._neighbours = neighbours
        self._views = views
        self._keys = keys
        self._vpn = vpn
        self._clock = clock
        self._now = now

    def apis(self, sides: frozenset[str], ip: str | None = None) -> Apis:
        """Return the APIs that a peer with these sides may open; `ip` is its address."""
        found: dict[str, Any] = {}
        if "ns" in sides:
            found["NSAPI"] = {
                "sync_clock": self.sync_clock, "netconsole": partial(self.netconsole, ip),
                "report_lldp_neighbor": partial(self.report_lldp_neighbor, ip),
                "user_keys": partial(self.user_keys, ip),
            }
        if "vs" in sides:
            found["VSAPI"] = {
                "register_device": partial(self.register_device, ip),
                "get_device_info": self.get_device_info,
            }
        if "ss" in sides:
            found["SSAPI"] = {
                "get_vpn_auth_keys": self._vpn.rows,
                "revoke_vpn_auth_key": self.revoke_vpn_auth_key,
            }
        return found

    async def sync_clock(self) -> int:
        """Answer at the next whole second."""
        return await next_whole_second(self._clock, self._now)

    async def netconsole(self, ip: str | None) -> bool:
        """Tell a node whether its kernel should send its messages (setting `netconsole`)."""
        node = self._registry.by_ip(ip) if ip is not None else None
        return node is not None and node.conf.get("netconsole", False) is True

    async def user_keys(self, ip: str | None) -> str:
        """Return the public keys that the calling node lets in, with commas between."""
        return ",".join(key.text for key in self._keys.of_node(ip))

    async def report_lldp_neighbor(self, ip: str | None, mac: Any, label: Any) -> None:
        """Record where the calling node is connected."""
        await self._neighbours.report(ip, _mac(mac), _text(label)[:MAX_LABEL])

    async def register_device(
        self, caller: str | None, vci: Any, uci: Any, ip: Any, mac: Any, name: Any = None
    ) -> None:
        """Record a node hosted by another machine, or the caller itself."""
        address = plain_address(_text(ip))
        if address is None:
            raise Invalid("expected an IPv4 address")
        await self._announcements.announce(
            caller, Sighting(_mac(mac), str(address), _text(vci), _text(uci), _text(name) or None)
        )

    async def get_device_info(self, mac: Any) -> dict[str, Any] | None:
        """Return the record of a device, None when unknown."""
        return self._views.for_nodes(_mac(mac))

    async def revoke_vpn_auth_key(self, certid: Any) -> dict[str, str] | None:
        """Revoke the key of a board; return what is wrong, None when it is done."""
        try:
            await self._vpn.revoke(_text(certid))
        except (NotFound, Conflict) as error:
            return {"status": "KO", "error_msg": str(error)}
        return None
