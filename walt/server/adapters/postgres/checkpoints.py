"""Checkpoints in PostgreSQL."""

from __future__ import annotations

from zope.interface import implementer

from walt.common.errors import NotFound
from walt.server.adapters.postgres.connection import Database
from walt.server.domain.logs.ports import ICheckpoints


@implementer(ICheckpoints)
class PostgresCheckpoints:
    """The table checkpoints, whose times are in the server's time zone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def time_of(self, user: str, name: str) -> float:
        """Return the epoch time of a checkpoint of `user`."""
        rows = await self._database.query(
            "SELECT extract(epoch FROM timestamp::timestamptz)::double precision"
            " FROM checkpoints WHERE username = %s AND name = %s",
            (user, name),
        )
        if not rows:
            raise NotFound(f'you have no checkpoint named "{name[:80]}"')
        return float(rows[0][0])
