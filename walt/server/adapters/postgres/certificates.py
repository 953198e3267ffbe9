"""Certificates in PostgreSQL."""

from __future__ import annotations

from zope.interface import implementer

from walt.server.adapters.postgres.connection import Database
from walt.server.domain.access.interfaces import ICertificateStore
from walt.server.domain.access.model import Certificate, Holder


@implementer(ICertificateStore)
class PostgresCertificates:
    """The table certificates."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[Certificate]:
        """Return all of them."""
        rows = await self._database.query(
            "SELECT serial, holder, kind, extract(epoch FROM issued)::double precision,"
            " extract(epoch FROM expires)::double precision,"
            " extract(epoch FROM revoked)::double precision FROM certificates"
        )
        return [
            Certificate(serial, Holder(holder, kind), issued, expires, revoked)
            for serial, holder, kind, issued, expires, revoked in rows
        ]

    async def add(self, certificate: Certificate) -> None:
        """Remember a new one."""
        await self._database.query(
            "INSERT INTO certificates (serial, holder, kind, issued, expires)"
            " VALUES (%s, %s, %s, to_timestamp(%s), to_timestamp(%s)) RETURNING serial",
            (certificate.serial, certificate.holder.name, certificate.holder.kind,
             certificate.issued, certificate.expires),
        )

    async def revoke(self, serials: list[str], moment: float) -> None:
        """Remember that certificates are worth nothing from `moment` on."""
        await self._database.query(
            "UPDATE certificates SET revoked = to_timestamp(%s) WHERE serial = ANY(%s)"
            " RETURNING serial",
            (moment, serials),
        )
