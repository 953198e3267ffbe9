"""Commands about logs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from walt.rpc.commands import logs as commands
from walt.server.api.context import Context
from walt.server.domain.requester import IRequester


class LogsApi(amp.CommandLocator):
    """Translates commands to calls of the log service."""

    def __init__(self, context: Context, requester: IRequester) -> None:
        self._context = context
        self._requester = requester

    @commands.CountLogs.responder
    def count(self, query: Any) -> Deferred[dict[str, Any]]:
        """How many stored lines match."""
        context = self._context
        wanted = context.issuers.query(query, self._requester.username)
        running = Deferred.fromCoroutine(context.logs.count(wanted))
        return running.addCallback(lambda count: {"count": count})

    @commands.CheckpointTime.responder
    def checkpoint_time(self, name: str) -> Deferred[dict[str, Any]]:
        """When the caller set a checkpoint."""
        running = Deferred.fromCoroutine(
            self._context.checkpoints.time_of(self._requester.username, name)
        )
        return running.addCallback(lambda moment: {"time": moment})
