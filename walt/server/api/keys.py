"""Keys of users, and the one of nodes."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from walt.common.sshkeys import PublicKey
from walt.rpc.commands import keys as commands
from walt.server.api.context import Context
from walt.server.domain.requester import IRequester


class KeysApi(amp.CommandLocator):
    """Translates commands to calls of the keys' service."""

    def __init__(self, context: Context, requester: IRequester) -> None:
        self._context = context
        self._requester = requester

    @commands.AddKey.responder
    def add(self, key: str) -> Deferred[dict[str, Any]]:
        """Give the caller one more key."""
        return _answer(self._context.keys.add(self._requester.username, key))

    @commands.RemoveKey.responder
    def remove(self, key: str) -> Deferred[dict[str, Any]]:
        """Take a key from the caller."""
        return _answer(self._context.keys.remove(self._requester.username, key))

    @commands.ListKeys.responder
    def keys(self) -> dict[str, Any]:
        """Return the keys of the caller."""
        return {"rows": [
            {"type": one.algorithm, "fingerprint": one.fingerprint, "comment": one.comment}
            for one in self._context.keys.of(self._requester.username)
        ]}

    @commands.NodeHostKey.responder
    def host(self) -> dict[str, Any]:
        """Return what makes an ssh program know nodes."""
        line = self._context.keys.host_line
        return {"name": line.split(" ", 1)[0], "line": line.strip()}


def _answer(
    work: Coroutine[Any, Any, tuple[PublicKey, list[str], list[str]]]
) -> Deferred[dict[str, Any]]:
    return Deferred.fromCoroutine(work).addCallback(lambda done: {
        "fingerprint": done[0].fingerprint, "reached": done[1], "missed": done[2],
    })
