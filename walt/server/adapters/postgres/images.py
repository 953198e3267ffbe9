"""Names of images in PostgreSQL."""

from __future__ import annotations

from zope.interface import implementer

from walt.server.adapters.postgres.changes import record
from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.domain.devices.changes import Change
from walt.server.domain.images.interfaces import IImageCatalog
from walt.server.domain.requester import acting


@implementer(IImageCatalog)
class PostgresImages:
    """The table images."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fullnames(self) -> set[str]:
        """Return the known names."""
        return {str(row[0]) for row in await self._database.query("SELECT fullname FROM images")}

    async def add(self, fullname: str) -> None:
        """Record a name; nothing happens when it is known."""
        async def work(one: Transaction) -> None:
            added = await one.query(
                "INSERT INTO images (fullname) VALUES (%s) ON CONFLICT DO NOTHING"
                " RETURNING fullname", (fullname,),
            )
            if added:
                await record(one, [_stored(fullname, None, fullname)])

        await self._database.transaction(work)

    async def remove(self, fullname: str) -> None:
        """Forget a name that no node uses; nothing happens when it is unknown."""
        async def work(one: Transaction) -> None:
            gone = await one.query(
                "DELETE FROM images WHERE fullname = %s"
                " AND NOT EXISTS (SELECT 1 FROM nodes WHERE image = fullname) RETURNING fullname",
                (fullname,),
            )
            if gone:
                await record(one, [_stored(fullname, fullname, None)])

        await self._database.transaction(work)


def _stored(fullname: str, before: str | None, after: str | None) -> Change:
    return Change("stored-image", None, fullname, before, after, acting.get())
