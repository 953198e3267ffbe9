"""Commands about logs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from walt.common.errors import Invalid
from walt.common.names import is_checkpoint_name
from walt.rpc.commands import logs as commands
from walt.server.api.context import Context
from walt.server.domain.requester import IRequester

MAX_TIME = 253_402_300_799.0  # the end of year 9999


class LogsApi(amp.CommandLocator):
    """Translates commands to calls of the log service."""

    def __init__(self, context: Context, requester: IRequester) -> None:
        self._context = context
        self._requester = requester

    @commands.CountLogs.responder
    def count(self, query: Any) -> Deferred[dict[str, Any]]:
        """Return how many stored lines a query has; LimitExceeded when counting takes too long."""
        context = self._context
        wanted = context.issuers.query(query, self._requester.username)
        running = Deferred.fromCoroutine(context.logs.count(wanted, self._requester.username))
        return running.addCallback(lambda count: {"count": count})

    @commands.CheckpointTime.responder
    def checkpoint_time(self, name: str) -> Deferred[dict[str, Any]]:
        """Return when a checkpoint of the caller is, in epoch seconds."""
        running = Deferred.fromCoroutine(
            self._context.checkpoints.time_of(self._requester.username, name)
        )
        return running.addCallback(lambda moment: {"time": moment})

    @commands.LogIssuers.responder
    def issuers(self, issuers: str) -> dict[str, Any]:
        """Return the names of a set of issuers, keywords replaced."""
        context = self._context
        wanted = context.issuers.query({"issuers": issuers}, self._requester.username)
        return {"names": context.issuers.names(wanted)}

    @commands.AddCheckpoint.responder
    def add_checkpoint(self, name: str, time: float | None = None) -> Deferred[dict[str, Any]]:
        """Keep a moment (now, or epoch seconds) under a name of the caller's."""
        if not is_checkpoint_name(name):
            raise Invalid(
                f'"{name[:80]}" is not a valid name for a checkpoint: use letters, digits and'
                " dashes, at least two characters, the first one no dash"
            )
        moment = self._context.now() if time is None else time
        if not 0 <= moment <= MAX_TIME:
            raise Invalid("a checkpoint is a moment from 1970 to 9999")
        running = Deferred.fromCoroutine(
            self._context.checkpoints.add(self._requester.username, name, moment)
        )
        return running.addCallback(lambda _: {"time": moment})

    @commands.RemoveCheckpoint.responder
    def remove_checkpoint(self, name: str) -> Deferred[dict[str, Any]]:
        """Forget a checkpoint of the caller."""
        running = Deferred.fromCoroutine(
            self._context.checkpoints.remove(self._requester.username, name)
        )
        return running.addCallback(lambda _: {})

    @commands.ListCheckpoints.responder
    def list_checkpoints(self) -> Deferred[dict[str, Any]]:
        """Return the checkpoints of the caller, by time."""
        running = Deferred.fromCoroutine(
            self._context.checkpoints.all_of(self._requester.username)
        )
        return running.addCallback(lambda found: {"checkpoints": found})
