"""Commands about the server itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp

from walt.common.errors import Denied
from walt.rpc.commands import session as commands
from walt.rpc.commands.devices import SyncClock
from walt.server.domain.nodes.clock import next_whole_second
from walt.server.domain.nodes.completion import Completion
from walt.server.domain.platform import Operations
from walt.server.domain.requester import IRequester

PIECE = 60_000  # bytes: what one AMP value holds, and a little less
MAX_CANDIDATES = 10_000  # what the type Names holds


class ClockApi(amp.CommandLocator):
    """The time of the server; `now` returns epoch seconds."""

    def __init__(self, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._clock = clock
        self._now = now

    @commands.GetTime.responder
    def time(self) -> dict[str, Any]:
        """Return the time of the server in epoch seconds."""
        return {"time": self._now()}

    @SyncClock.responder
    async def sync_clock(self) -> dict[str, Any]:
        """Answer when a second of the server's clock begins, with its number."""
        return {"time": await next_whole_second(self._clock, self._now)}


class ServerApi(amp.CommandLocator):
    """Completion, daemons and workflows, the client's package.

    `client_package` returns the name and the size of the wheel of this release, and so many
    bytes of it from an offset on.
    """

    def __init__(
        self, requester: IRequester, completion: Completion, operations: Operations,
        client_package: Callable[[int, int], Awaitable[tuple[str, int, bytes]]],
    ) -> None:
        self._requester = requester
        self._completion = completion
        self._operations = operations
        self._client_package = client_package

    @commands.GetClientPackage.responder
    async def client_package(self, offset: int) -> dict[str, Any]:
        """Return a piece of the package that clients of another version install."""
        name, size, data = await self._client_package(max(0, offset), PIECE)
        return {"name": name, "size": size, "data": data}

    @commands.CompleteWord.responder
    async def complete(self, kind: str, words: list[str], partial: str) -> dict[str, Any]:
        """Return what the word being typed may become, for completion by shells."""
        found = await self._completion.complete(kind, words, partial, self._requester.username)
        return {"candidates": found[:MAX_CANDIDATES]}

    @commands.ShowWorkflows.responder
    def workflows(self) -> dict[str, Any]:
        """Return one row for each workflow that runs."""
        return {"rows": self._operations.workflows()}

    @commands.ShowServices.responder
    def services(self) -> dict[str, Any]:
        """Return one row for each daemon of the server."""
        return {"rows": self._operations.services()}


class DatabaseApi(amp.CommandLocator):
    """The database itself; `account` is who the connection proves, `variables` say how."""

    def __init__(self, account: str | None, variables: Callable[[], dict[str, str]]) -> None:
        self._account = account
        self._variables = variables

    @commands.ReachDatabase.responder
    def reach(self) -> dict[str, Any]:
        """Return how psql reaches the database. Raises Denied."""
        if self._account != "root":
            raise Denied("only root of the server's machine may look into the database")
        return {"variables": self._variables()}
