"""Keys of VPN nodes in PostgreSQL."""

from __future__ import annotations

from zope.interface import implementer

from walt.common.errors import NotFound
from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.domain.vpn.interfaces import IVpnKeys
from walt.server.domain.vpn.model import VpnKey


@implementer(IVpnKeys)
class PostgresVpnKeys:
    """The tables vpnauth and vpnnodes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[VpnKey]:
        """Return every key, by the MAC of the VPN."""
        return [
            VpnKey(*row) for row in await self._database.query(
                "SELECT vpnmac, pubkeycert, certid, device_label, revoked FROM vpnauth"
                " ORDER BY vpnmac"
            )
        ]

    async def enrol(self, mac: str, key: VpnKey) -> None:
        """Add a key and join it to a device, both or nothing."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "INSERT INTO vpnauth (vpnmac, pubkeycert, certid) VALUES (%s, %s, %s)",
                (key.vpn_mac, key.certificate, key.cert_id),
            )
            joined = await transaction.query(
                "INSERT INTO vpnnodes (mac, vpnmac) SELECT mac, %s FROM devices WHERE mac = %s"
                " RETURNING mac", (key.vpn_mac, mac),
            )
            if not joined:
                raise NotFound("the board is not recorded (any more): try again")

        await self._database.transaction(work)

    async def replace_certificate(self, vpn_mac: str, certificate: str) -> None:
        """Keep another certificate of a board."""
        await self._database.execute(
            "UPDATE vpnauth SET pubkeycert = %s WHERE vpnmac = %s", (certificate, vpn_mac)
        )

    async def revoke(self, cert_id: str) -> None:
        """Mark every key of this identity as revoked."""
        await self._database.execute(
            "UPDATE vpnauth SET revoked = true WHERE certid = %s", (cert_id,)
        )
