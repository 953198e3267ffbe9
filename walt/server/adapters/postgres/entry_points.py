"""HTTP entry points of the VPN in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from walt.server.adapters.postgres.connection import Database
from walt.server.domain.vpn.interfaces import IEntryPointNames


@implementer(IEntryPointNames)
class PostgresEntryPoints:
    """The table vpnentrypoints."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> dict[str, tuple[str, ...]]:
        """Return the addresses that each name had last, the oldest name first."""
        rows = await self._database.query(
            "SELECT name, addresses FROM vpnentrypoints ORDER BY added, name"
        )
        return {name: tuple(addresses) for name, addresses in rows}

    async def remember(self, name: str, addresses: Sequence[str]) -> None:
        """Keep a name, and its present addresses."""
        await self._database.execute(
            "INSERT INTO vpnentrypoints (name, addresses) VALUES (%s, %s)"
            " ON CONFLICT (name) DO UPDATE SET addresses = excluded.addresses",
            (name, list(addresses)),
        )
