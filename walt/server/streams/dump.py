"""REQ_DUMP_LOGS: stored lines, then live ones, without loss or doubles (S-174)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from walt.common import records
from walt.common.errors import InternalError, WaltError
from walt.server.domain.logs.lines import LogService
from walt.server.domain.logs.model import LogLine, LogQuery
from walt.server.domain.nodes.issuers import LogIssuers
from walt.server.runtime.producing import Gate
from walt.server.streams.base import FramedRequest, Peer, Request, StreamProtocol

_log = Logger()

MAX_HELD = 1 << 20  # characters of live lines kept for a late reader; above, it is dropped
LINE_COST = 100  # what a held line costs besides its text


class LogDumps:
    """Makes the requests of one server.

    A reader for whom more than `most_held` characters of live lines wait is dropped.
    """

    def __init__(
        self, logs: LogService, issuers: LogIssuers, most_held: int = MAX_HELD
    ) -> None:
        self.most_held = most_held
        self.logs = logs
        self.issuers = issuers

    def request(self, connection: StreamProtocol, peer: Peer) -> Request:
        """Make the request of one connection."""
        return DumpRequest(self, connection, peer)


def _cost(lines: list[LogLine]) -> int:
    return sum(LINE_COST + len(line.line) + len(line.stream) for line in lines)


class DumpRequest(FramedRequest):
    """Parameters: the query object, `history` and `realtime`; data frames hold blocks of
    records, as `walt.common.records` writes them.
    """

    def __init__(self, owner: LogDumps, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(connection, peer)
        self._owner = owner
        self._held: list[tuple[int, list[LogLine]]] = []
        self._held_size = 0
        self._live = False
        self._gate = Gate(resumed=self._caught_up, stopped=self._stop)
        self._work: Deferred[None] | None = None
        self._subscribed = False

    def opened(self, parameters: dict[str, Any]) -> None:
        history = bool(parameters.pop("history", False))
        realtime = bool(parameters.pop("realtime", False))
        query = self._owner.issuers.query(parameters, self.username)
        transport: Any = self.connection.transport
        transport.registerProducer(self._gate, True)
        if realtime:
            self._subscribed = True
            self._owner.logs.subscribe(query, self._on_live)
            # No line from now on is missed: a console may take what its user types.
            self.data(b"")
        self._work = Deferred.fromCoroutine(self._run(query, history, realtime))
        self._work.addErrback(self._failed)

    async def _run(self, query: LogQuery, history: bool, realtime: bool) -> None:
        if history:
            await self._history(query)
        if not realtime:
            self._end(status=0)
            return
        self._live = True
        self._send_held()

    async def _history(self, query: LogQuery) -> None:
        cursor, last = await self._owner.logs.open(query, self.username)
        self._held = [(number, lines) for number, lines in self._held if number > last]
        self._held_size = sum(_cost(lines) for _, lines in self._held)
        try:
            while block := await cursor.next_block():
                self._send(block)
                await self._gate.opened()
        finally:
            await cursor.close()

    def _on_live(self, lines: list[LogLine], last: int) -> None:
        if self._live and not self._gate.closed:
            self._send(records.block_of(lines))
            return
        # Lines that came together are stored together: their last number tells for all.
        self._held.append((last, lines))
        self._held_size += _cost(lines)
        if self._held_size > self._owner.most_held:
            self._too_slow()

    def _too_slow(self) -> None:
        if self._work is not None:
            self._work.cancel()
        self.message("your reader is too slow for these live logs; they end here\n")
        self._end(status=1, error="reader too slow", code="LIMIT_EXCEEDED")

    def _send(self, block: records.Block) -> None:
        names = {mac: self._owner.issuers.name(mac) for mac, _ in block.sources}
        self.data(records.encode(block, names))

    def _send_held(self) -> None:
        held, self._held, self._held_size = self._held, [], 0
        if held:
            self._send(records.block_of([line for _, lines in held for line in lines]))

    def _end(self, **result: Any) -> None:
        """Stop, then send the result and close: a producer would hold back the close."""
        self._stop()
        transport: Any = self.connection.transport
        if transport is not None:
            transport.unregisterProducer()
            self.result(**result)

    def _failed(self, failure: Any) -> None:
        if failure.check(CancelledError):
            return
        if failure.check(WaltError):
            error = failure.value
        else:
            _log.failure("dumping logs", failure)
            error = InternalError("the server failed to read these logs; see its log")
        self._end(status=error.exit_status, error=str(error), code=error.code)

    def _caught_up(self) -> None:
        if self._live:
            self._send_held()

    def lost(self) -> None:
        self._stop()
        if self._work is not None:
            self._work.cancel()

    def _stop(self) -> None:
        self._live = False
        self._held, self._held_size = [], 0
        if self._subscribed:
            self._subscribed = False
            self._owner.logs.unsubscribe(self._on_live)
