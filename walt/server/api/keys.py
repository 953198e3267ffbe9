"""Keys of users, and the one of nodes."""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from walt.common.sshkeys import PublicKey
from walt.rpc.commands import keys as commands
from walt.server.domain.nodes.keys import UserKeys
from walt.server.domain.requester import IRequester


class KeysApi(amp.CommandLocator):
    """Public keys of the caller, and the host key of nodes."""

    def __init__(self, requester: IRequester, keys: UserKeys) -> None:
        self._requester = requester
        self._keys = keys

    @commands.AddKey.responder
    async def add(self, key: str) -> dict[str, Any]:
        """Give the caller one more key."""
        return _answer(*await self._keys.add(self._requester.username, key))

    @commands.RemoveKey.responder
    async def remove(self, key: str) -> dict[str, Any]:
        """Take a key from the caller."""
        return _answer(*await self._keys.remove(self._requester.username, key))

    @commands.ListKeys.responder
    def keys(self) -> dict[str, Any]:
        """Return the keys of the caller."""
        return {"rows": [
            {"type": key.algorithm, "fingerprint": key.fingerprint, "comment": key.comment}
            for key in self._keys.of(self._requester.username)
        ]}

    @commands.NodeHostKey.responder
    def host(self) -> dict[str, Any]:
        """Return what makes an ssh program know nodes."""
        line = self._keys.host_line()
        return {"name": line.split(" ", 1)[0], "line": line.strip()}


def _answer(key: PublicKey, reached: list[str], missed: list[str]) -> dict[str, Any]:
    return {"fingerprint": key.fingerprint, "reached": reached, "missed": missed}
