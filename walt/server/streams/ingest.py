"""REQ_NEW_INCOMING_LOGS: lines from nodes (spec node-protocols §6.3.1)."""

from __future__ import annotations

from typing import Any

from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.model import clean_text
from walt.server.domain.logs.service import LogService
from walt.server.streams.base import Peer, Request, StreamProtocol

NO_TIMESTAMPS = b"NO_TIMESTAMPS"
MAX_HEADER = 4096
MAX_LINE = 16 * 1024 * 1024


class LogIngestion:
    """Makes the requests of one server."""

    def __init__(self, registry: DeviceRegistry, logs: LogService) -> None:
        self.registry = registry
        self.logs = logs

    def request(self, connection: StreamProtocol, peer: Peer) -> Request:
        """Make the request of one connection."""
        return IngestRequest(self, connection, peer)


class IngestRequest(Request):
    """Stream name, mode, lines; `CLOSE` as last line ends properly."""

    def __init__(self, owner: LogIngestion, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(connection, peer)
        self._owner = owner
        self._pending = b""
        self._stream: str | None = None
        self._server_time: bool | None = None
        self._held: bytes | None = None  # a CLOSE counts only if nothing follows
        self._issuer = ""

    def started(self) -> None:
        device = self._owner.registry.by_ip(self.peer.ip) if self.peer.ip else None
        if device is None:
            self.connection.close()
        else:
            self._issuer = device.mac

    def received(self, data: bytes) -> None:
        if not self._issuer:
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        if self._server_time is None:
            lines = self._header(lines)
        if len(self._pending) > (MAX_HEADER if self._server_time is None else MAX_LINE):
            self.connection.abort()
            return
        for line in lines:
            if self._held is not None:
                self._write(self._held)
                self._held = None
            if line == b"CLOSE":
                self._held = line
            else:
                self._write(line)
        if self._held is not None and not self._pending:
            self.connection.close()
        elif self._owner.logs.congested:
            self._wait()

    def _header(self, lines: list[bytes]) -> list[bytes]:
        if lines and self._stream is None:
            self._stream = clean_text(lines.pop(0))[:1000]
        if lines and self._stream is not None:
            self._server_time = lines.pop(0).strip() == NO_TIMESTAMPS
            self.connection.header_complete()
        return lines

    def _write(self, line: bytes) -> None:
        assert self._stream is not None
        timestamp = None
        if not self._server_time:
            stamp, _space, rest = line.partition(b" ")
            try:
                timestamp, line = float(stamp), rest
            except ValueError:
                pass  # not a timestamp: the line is kept whole, at reception time
        self._owner.logs.write(self._issuer, self._stream, clean_text(line), timestamp=timestamp)

    def _wait(self) -> None:
        transport: Any = self.connection.transport
        transport.pauseProducing()
        self._owner.logs.drained().addCallback(lambda _: transport.resumeProducing())

    def lost(self) -> None:
        if not self._issuer or self._server_time is None:
            return
        if self._held is not None and not self._pending:
            return
        if self._held is not None:
            self._write(self._held)
        if self._pending:
            self._write(self._pending)
        assert self._stream is not None
        self._owner.logs.write(self._issuer, self._stream, "<disconnected!>")
