"""Keys of users, in memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walt.common.sshkeys import PublicKey
from walt.server.domain.nodes.interfaces import IUserKeys


@implementer(IUserKeys)
class FakeUserKeys:
    """Keeps them in a list; `gate` holds the next change back."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, PublicKey]] = []
        self.gate: Deferred[None] | None = None

    async def _wait(self) -> None:
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate

    async def load(self) -> list[tuple[str, PublicKey]]:
        """Return all keys with their users, oldest first."""
        return list(self.rows)

    async def add(self, user: str, key: PublicKey) -> None:
        """Remember a key."""
        await self._wait()
        if not any((user, key.text) == (one, other.text) for one, other in self.rows):
            self.rows.append((user, key))

    async def remove(self, user: str, key: PublicKey) -> None:
        """Forget a key."""
        await self._wait()
        self.rows = [one for one in self.rows if (one[0], one[1].text) != (user, key.text)]
