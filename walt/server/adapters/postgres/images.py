"""Names of images in PostgreSQL."""

from __future__ import annotations

from zope.interface import implementer

from walt.server.adapters.postgres.connection import Database
from walt.server.domain.images.interfaces import IImageCatalog


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
        await self._database.execute(
            "INSERT INTO images (fullname) VALUES (%s) ON CONFLICT DO NOTHING", (fullname,)
        )

    async def remove(self, fullname: str) -> None:
        """Forget a name that no node uses; nothing happens when it is unknown."""
        await self._database.execute(
            "DELETE FROM images WHERE fullname = %s"
            " AND NOT EXISTS (SELECT 1 FROM nodes WHERE image = fullname)",
            (fullname,),
        )
