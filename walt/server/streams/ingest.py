"""REQ_NEW_INCOMING_LOGS: lines from nodes (spec node-protocols §6.3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.lines import LogService
from walt.server.domain.logs.model import clean_text
from walt.server.streams.base import Peer, Request, StreamProtocol

_log = Logger()

NO_TIMESTAMPS = b"NO_TIMESTAMPS"
MAX_HEADER = 4096
MAX_STREAM_NAME = 600  # characters, of 4 bytes at most: an index takes 2,700 bytes
MAX_LINE = 16 * 1024 * 1024
MAX_STREAMS = 500  # names of streams that one device uses, since the server has started
OTHER_STREAM = "too-many-streams"  # where the lines of further ones go
# Lines without end are kept by the server: all those of one device, and of all devices.
MAX_UNFINISHED_OF_DEVICE = 32 * 1024 * 1024
MAX_UNFINISHED = 256 * 1024 * 1024


@dataclass
class IngestLimits:
    """What devices may send: bytes of a line, names of streams, bytes of lines without end."""

    line: int = MAX_LINE
    streams: int = MAX_STREAMS
    unfinished_of_device: int = MAX_UNFINISHED_OF_DEVICE
    unfinished: int = MAX_UNFINISHED


class Unfinished:
    """Counts the bytes of lines without end, which many connections may send at once."""

    def __init__(self, limits: IngestLimits) -> None:
        self._limits = limits
        self._total = 0
        self._of_device: dict[str, int] = {}

    def change(self, issuer: str, size: int) -> bool:
        """Count `size` bytes more (or less) of a device; tell whether that is not too much."""
        self._total += size
        mine = self._of_device.get(issuer, 0) + size
        if mine:
            self._of_device[issuer] = mine
        else:
            self._of_device.pop(issuer, None)
        limits = self._limits
        return mine <= limits.unfinished_of_device and self._total <= limits.unfinished


class StreamNames:
    """Remembers the names of streams that devices use, up to a number for each."""

    def __init__(self, limits: IngestLimits) -> None:
        self._limits = limits
        self._of_device: dict[str, set[str]] = {}

    def admit(self, issuer: str, name: str) -> str:
        """Return the name under which lines of a device are kept: OTHER_STREAM for too many."""
        names = self._of_device.setdefault(issuer, set())
        if name in names:
            return name
        if len(names) >= self._limits.streams:
            return OTHER_STREAM
        names.add(name)
        if len(names) == self._limits.streams:
            _log.warn(
                "device {mac} has used {count} log streams, which is the limit: lines of further"
                " ones go to the stream {other}", mac=issuer, count=len(names),
                other=OTHER_STREAM,
            )
        return name


class LogIngestion:
    """Makes the requests of one server."""

    def __init__(
        self, registry: DeviceRegistry, logs: LogService, limits: IngestLimits | None = None
    ) -> None:
        self.registry = registry
        self.logs = logs
        self.limits = IngestLimits() if limits is None else limits
        self.unfinished = Unfinished(self.limits)
        self.names = StreamNames(self.limits)

    def request(self, connection: StreamProtocol, peer: Peer) -> Request:
        """Make the request of one connection."""
        return IngestRequest(self, connection, peer)


class IngestRequest(Request):
    """Stream name, mode, lines; `CLOSE` as last line ends properly.

    Lines are handed over by blocks, as they arrive. After a CLOSE the
    connection is closed once everything received is in the database: that is
    the receipt of the sender.
    """

    def __init__(self, owner: LogIngestion, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(connection, peer)
        self._owner = owner
        self._partial = bytearray()  # a line without its end
        self._stream: str | None = None
        self._server_time: bool | None = None
        self._held = False  # a CLOSE counts only if nothing follows
        self._closing = False
        self._issuer = ""

    def started(self) -> None:
        device = self._owner.registry.by_ip(self.peer.ip) if self.peer.ip else None
        if device is None:
            self.connection.close()
        else:
            self._issuer = device.mac

    def received(self, data: bytes) -> None:
        if not self._issuer or self._closing:
            return
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            self._complete(self._take_partial() + whole)
        if rest:
            self._partial += rest
            limit = MAX_HEADER if self._server_time is None else self._owner.limits.line
            fits = self._owner.unfinished.change(self._issuer, len(rest))
            if len(self._partial) > limit or not fits:
                self.connection.abort()
                return
        self._decide()

    def _take_partial(self) -> bytes:
        if not self._partial:
            return b""
        self._owner.unfinished.change(self._issuer, -len(self._partial))
        partial, self._partial = bytes(self._partial), bytearray()
        return partial

    def _complete(self, block: bytes) -> None:
        """Handle lines that are complete, without the last newline."""
        while self._server_time is None:
            line, newline, block = block.partition(b"\n")
            self._header(line)
            if not newline:
                return
        if self._held:
            block = b"CLOSE\n" + block
            self._held = False
        if block == b"CLOSE":
            self._held = True
        elif block.endswith(b"\nCLOSE"):
            self._held = True
            self._write(block[:-len(b"\nCLOSE")])
        else:
            self._write(block)

    def _decide(self) -> None:
        if self._held and not self._partial:
            self._closing = True
            self._owner.logs.stored().addCallback(lambda _: self.connection.close())
        elif self._owner.logs.must_wait(self._issuer):
            self._wait()

    def _header(self, line: bytes) -> None:
        if len(line) > MAX_HEADER:
            self._closing = True
            self.connection.abort()
        if self._stream is None:
            self._stream = self._owner.names.admit(
                self._issuer, clean_text(line)[:MAX_STREAM_NAME]
            )
            return
        self._server_time = line.strip() == NO_TIMESTAMPS
        self.connection.header_complete()

    def _write(self, block: bytes) -> None:
        assert self._stream is not None
        if b"\r" in block:  # before a newline it is part of the end, as in walt.node.logs.lines
            block = b"\n".join([line.rstrip(b"\r") for line in block.split(b"\n")])
        text, stamps = clean_text(block), None
        if not self._server_time:
            text, stamps = stamped(text, self._owner.logs.now())
        self._owner.logs.write_lines(self._issuer, self._stream, text, stamps=stamps)

    def _wait(self) -> None:
        transport: Any = self.connection.transport
        transport.pauseProducing()
        self._owner.logs.welcome(self._issuer).addCallback(lambda _: transport.resumeProducing())

    def lost(self) -> None:
        partial = self._take_partial()
        if not self._issuer or self._server_time is None or self._closing:
            return
        rest = [b"CLOSE"] if self._held else []
        if partial:
            rest.append(partial)
        if rest:
            self._write(b"\n".join(rest))
        assert self._stream is not None
        self._owner.logs.write(self._issuer, self._stream, "<disconnected!>")


def stamped(text: str, now: float) -> tuple[str, list[float]]:
    """Take the epoch seconds off the start of each line; return the lines and the times.

    A line that does not start with a number is kept whole, with the time `now`.
    """
    lines, stamps = [], []
    for line in text.split("\n"):
        stamp, _, rest = line.partition(" ")
        try:
            stamps.append(float(stamp))
            lines.append(rest)
        except ValueError:
            stamps.append(now)
            lines.append(line)
    return "\n".join(lines), stamps
