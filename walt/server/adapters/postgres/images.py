"""Names of images in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

from zope.interface import implementer

from walt.server.adapters.postgres.changes import recording
from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.domain.devices.changes import Change
from walt.server.domain.images.interfaces import IImageCatalog
from walt.server.domain.requester import acting

_UNKNOWN = ""  # the id of an image that was there before ids were kept


@implementer(IImageCatalog)
class PostgresImages:
    """The table images."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self) -> Mapping[str, str | None]:
        """Return the known names; see IImageCatalog."""
        rows = await self._database.query("SELECT fullname, image_id FROM images")
        return {str(name): image_id for name, image_id in rows}

    async def put(self, fullname: str, image_id: str) -> None:
        """Record a name and its image; nothing happens when that is known."""
        async def work(transaction: Transaction) -> None:
            found = await transaction.query(
                "SELECT image_id FROM images WHERE fullname = %s FOR UPDATE", (fullname,)
            )
            before = found[0][0] if found else None
            if before == image_id:
                return
            await transaction.execute(
                "INSERT INTO images (fullname, image_id) VALUES (%s, %s)"
                " ON CONFLICT (fullname) DO UPDATE SET image_id = excluded.image_id",
                (fullname, image_id),
            )
            if before != _UNKNOWN:
                await transaction.execute_all(recording([_stored(fullname, before, image_id)]))

        await self._database.transaction(work)

    async def remove(self, fullname: str) -> None:
        """Forget a name that no node uses; nothing happens when it is unknown."""
        async def work(transaction: Transaction) -> None:
            gone = await transaction.query(
                "DELETE FROM images WHERE fullname = %s"
                " AND NOT EXISTS (SELECT 1 FROM nodes WHERE image = fullname) RETURNING image_id",
                (fullname,),
            )
            if gone and gone[0][0] is not None:
                await transaction.execute_all(recording([_stored(fullname, gone[0][0], None)]))

        await self._database.transaction(work)


def _stored(fullname: str, before: str | None, after: str | None) -> Change:
    return Change("stored-image", None, fullname, before, after, acting.get())
