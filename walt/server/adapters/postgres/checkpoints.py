"""Checkpoints in PostgreSQL."""

from __future__ import annotations

from zope.interface import implementer

from walt.common.errors import Conflict, NotFound
from walt.server.adapters.postgres.connection import Database
from walt.server.domain.logs.interfaces import ICheckpoints


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
            raise _absent(name)
        return float(rows[0][0])

    async def add(self, user: str, name: str, moment: float) -> None:
        """Name an epoch time."""
        rows = await self._database.query(
            "INSERT INTO checkpoints (username, timestamp, name)"
            " VALUES (%s, to_timestamp(%s)::timestamp, %s)"
            " ON CONFLICT (username, name) DO NOTHING RETURNING name",
            (user, moment, name),
        )
        if not rows:
            raise Conflict(f'you have a checkpoint named "{name}" already')

    async def remove(self, user: str, name: str) -> None:
        """Forget a checkpoint."""
        rows = await self._database.query(
            "DELETE FROM checkpoints WHERE username = %s AND name = %s RETURNING name",
            (user, name),
        )
        if not rows:
            raise _absent(name)

    async def all_of(self, user: str) -> list[tuple[float, str]]:
        """Return the checkpoints of a user, by time."""
        rows = await self._database.query(
            "SELECT extract(epoch FROM timestamp::timestamptz)::double precision, name"
            " FROM checkpoints WHERE username = %s ORDER BY timestamp, name",
            (user,),
        )
        return [(float(moment), str(name)) for moment, name in rows]


def _absent(name: str) -> NotFound:
    return NotFound(f'you have no checkpoint named "{name[:80]}"; see: walt log list-checkpoints')
