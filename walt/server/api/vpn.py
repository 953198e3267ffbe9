"""Keys of VPN nodes, for `walt-vpn-admin`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.protocols import amp

from walt.rpc.commands import vpn as commands
from walt.server.domain.vpn.enrolment import VpnNodes


class VpnApi(amp.CommandLocator):
    """Who may come in through the tunnel; `settings` tells where it begins."""

    def __init__(self, vpn: VpnNodes, settings: Callable[[], dict[str, Any]]) -> None:
        self._vpn = vpn
        self._settings = settings

    @commands.ListVpnKeys.responder
    async def keys(self) -> dict[str, Any]:
        """Return one row for each key."""
        return {"rows": await self._vpn.rows()}

    @commands.RevokeVpnKey.responder
    async def revoke(self, certid: str) -> dict[str, Any]:
        """Refuse the certificates of a board."""
        await self._vpn.revoke(certid)
        return {}

    @commands.GetVpnSettings.responder
    def settings(self) -> dict[str, Any]:
        """Return what an entry point has to know."""
        return {"settings": self._settings()}
