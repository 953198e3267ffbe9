"""Commands about the server itself."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from walt.rpc.commands import session as commands
from walt.server.api.context import Context
from walt.server.domain.requester import IRequester

PIECE = 60_000  # bytes: what one AMP value holds, and a little less
MAX_CANDIDATES = 10_000  # what the type Names holds


class ServerApi(amp.CommandLocator):
    """Time, completion, daemons and workflows."""

    def __init__(self, context: Context, requester: IRequester) -> None:
        self._context = context
        self._requester = requester

    @commands.GetTime.responder
    def time(self) -> dict[str, Any]:
        """Return the time of the server in epoch seconds."""
        return {"time": self._context.now()}

    @commands.GetClientPackage.responder
    def client_package(self, offset: int) -> Deferred[dict[str, Any]]:
        """Return a piece of the package that clients of another version install."""
        return Deferred.fromCoroutine(self._piece(offset))

    async def _piece(self, offset: int) -> dict[str, Any]:
        name, size, data = await self._context.client_package(max(0, offset), PIECE)
        return {"name": name, "size": size, "data": data}

    @commands.CompleteWord.responder
    def complete(self, kind: str, words: list[str], partial: str) -> Deferred[dict[str, Any]]:
        """Return what the word being typed may become, for completion by shells."""
        running = Deferred.fromCoroutine(
            self._context.completion.complete(kind, words, partial, self._requester.username)
        )
        return running.addCallback(lambda found: {"candidates": found[:MAX_CANDIDATES]})

    @commands.ShowWorkflows.responder
    def workflows(self) -> dict[str, Any]:
        """Return one row for each workflow that runs."""
        return {"rows": self._context.operations.workflows()}

    @commands.ShowServices.responder
    def services(self) -> dict[str, Any]:
        """Return one row for each daemon of the server."""
        return {"rows": self._context.operations.services()}
