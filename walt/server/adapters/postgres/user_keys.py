"""Keys of users in PostgreSQL."""

from __future__ import annotations

from zope.interface import implementer

from walt.common.sshkeys import PublicKey
from walt.server.adapters.postgres.connection import Database
from walt.server.domain.nodes.interfaces import IUserKeys


@implementer(IUserKeys)
class PostgresUserKeys:
    """The table user_keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[tuple[str, PublicKey]]:
        """Return all keys with their users, oldest first."""
        rows = await self._database.query(
            "SELECT username, key, comment FROM user_keys ORDER BY added, key"
        )
        found = []
        for user, key, comment in rows:
            algorithm, data = key.split(" ", 1)
            found.append((user, PublicKey(algorithm, data, comment)))
        return found

    async def add(self, user: str, key: PublicKey) -> None:
        """Remember a key of a user."""
        await self._database.query(
            "INSERT INTO user_keys (username, key, comment) VALUES (%s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING username",
            (user, key.text, key.comment),
        )

    async def remove(self, user: str, key: PublicKey) -> None:
        """Forget a key of a user."""
        await self._database.query(
            "DELETE FROM user_keys WHERE username = %s AND key = %s RETURNING username",
            (user, key.text),
        )
