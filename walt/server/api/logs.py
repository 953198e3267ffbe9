"""Commands about logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.protocols import amp

from walt.common.errors import Invalid
from walt.common.names import is_checkpoint_name
from walt.rpc.commands import logs as commands
from walt.server.domain.logs.interfaces import ICheckpoints
from walt.server.domain.logs.lines import LogService
from walt.server.domain.nodes.issuers import LogIssuers
from walt.server.domain.requester import IRequester

MAX_TIME = 253_402_300_799.0  # the end of year 9999


class LogsApi(amp.CommandLocator):
    """Questions about log lines, and checkpoints; `now` returns epoch seconds."""

    def __init__(
        self, requester: IRequester, logs: LogService, issuers: LogIssuers,
        checkpoints: ICheckpoints, now: Callable[[], float],
    ) -> None:
        self._requester = requester
        self._logs = logs
        self._issuers = issuers
        self._checkpoints = checkpoints
        self._now = now

    @commands.CountLogs.responder
    async def count(self, query: Any) -> dict[str, Any]:
        """Return how many stored lines a query has; LimitExceeded when counting takes too long."""
        user = self._requester.username
        return {"count": await self._logs.count(self._issuers.query(query, user), user)}

    @commands.CheckpointTime.responder
    async def checkpoint_time(self, name: str) -> dict[str, Any]:
        """Return when a checkpoint of the caller is, in epoch seconds."""
        return {"time": await self._checkpoints.time_of(self._requester.username, name)}

    @commands.LogIssuers.responder
    def issuers(self, issuers: str) -> dict[str, Any]:
        """Return the names of a set of issuers, keywords replaced."""
        wanted = self._issuers.query({"issuers": issuers}, self._requester.username)
        return {"names": self._issuers.names(wanted)}

    @commands.AddCheckpoint.responder
    async def add_checkpoint(self, name: str, time: float | None = None) -> dict[str, Any]:
        """Keep a moment (now, or epoch seconds) under a name of the caller's."""
        if not is_checkpoint_name(name):
            raise Invalid(
                f'"{name[:80]}" is not a valid name for a checkpoint: use letters, digits and'
                " dashes, at least two characters, the first one no dash"
            )
        moment = self._now() if time is None else time
        if not 0 <= moment <= MAX_TIME:
            raise Invalid("a checkpoint is a moment from 1970 to 9999")
        await self._checkpoints.add(self._requester.username, name, moment)
        return {"time": moment}

    @commands.RemoveCheckpoint.responder
    async def remove_checkpoint(self, name: str) -> dict[str, Any]:
        """Forget a checkpoint of the caller."""
        await self._checkpoints.remove(self._requester.username, name)
        return {}

    @commands.ListCheckpoints.responder
    async def list_checkpoints(self) -> dict[str, Any]:
        """Return the checkpoints of the caller, by time."""
        return {"checkpoints": await self._checkpoints.all_of(self._requester.username)}
