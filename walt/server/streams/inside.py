"""A stream whose other end is a web page: what else a socket would be (docs/protocols.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from walt.common.errors import Denied
from walt.server.streams.base import Peer, RequestClass, StreamProtocol

WINDOW = 128 * 1024  # bytes that a page may have to process: then the stream waits
MAX_HELD = 256 * 1024  # bytes of a page, for a stream that does not take them
PIECE = 32 * 1024  # bytes of one message
ACKNOWLEDGEMENT = b"A"  # a kind of frame that pages alone send: octets processed (4)
FOR_PAGES = frozenset({"REQ_DUMP_LOGS", "REQ_NODE_CMD", "REQ_NODE_CONSOLE"})


class PageStream:
    """One request of the stream port, for a page.

    `send` carries bytes to the page, `ended` tells it that no more come; `late` tells whether it
    does not take what it is sent. It is the transport of the request: who produces waits while
    more than `WINDOW` bytes were not acknowledged, and while the page is late, whatever it says.
    """

    def __init__(
        self, requests: Mapping[str, RequestClass], peer: Peer, clock: IReactorTime,
        send: Callable[[bytes], object], ended: Callable[[], object],
        late: Callable[[], bool],
    ) -> None:
        self._send = send
        self._late = late
        self._ended = ended
        self._clock = clock
        self._producer: Any = None
        self._paused = False  # the producer
        self._unprocessed = 0
        self._held: list[bytes] = []
        self._reading = True
        self._over = False
        self._protocol = StreamProtocol(requests, peer, clock)
        self._protocol.makeConnection(self)

    def begin(self, request: str, parameters: dict[str, Any]) -> None:
        """Say what is wanted. Raises Denied for what pages have no use for."""
        if request not in FOR_PAGES:
            raise Denied(f"{request[:40]} is not for web pages: use the walt command")
        line = json.dumps({**parameters, "username": None})
        self._protocol.dataReceived(f"{request}\n{line}\n".encode())

    def received(self, data: bytes) -> None:
        """One frame of the page came."""
        if self._over:
            return
        if data[:1] == ACKNOWLEDGEMENT:
            self._acknowledged(int.from_bytes(data[5:9], "big"))
        elif self._reading:
            self._protocol.dataReceived(data)
        else:
            self._held.append(data)
            if sum(len(piece) for piece in self._held) > MAX_HELD:
                self.abortConnection()

    def _acknowledged(self, count: int) -> None:
        self._unprocessed = max(0, self._unprocessed - count)
        self.drained()

    def drained(self) -> None:
        """The page takes what it is sent: who waited for that goes on."""
        if self._paused and self._unprocessed <= WINDOW // 2 and not self._late():
            self._paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    # -- what a transport has ------------------------------------------------

    disconnecting = False

    def write(self, data: bytes) -> None:
        """Send bytes to the page."""
        if self._over or not data:
            return
        for at in range(0, len(data), PIECE):
            self._send(data[at:at + PIECE])
        self._unprocessed += len(data)
        if (self._unprocessed > WINDOW or self._late()) and not self._paused:
            self._paused = True
            if self._producer is not None:
                self._producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Who sends waits for the page."""
        self._producer = producer
        if self._paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Nobody is to wait any more."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Keep what the page sends."""
        self._reading = False

    def resumeProducing(self) -> None:
        """Hand over what the page sent, and what it sends."""
        self._reading = True
        while self._held and self._reading and not self._over:
            self._protocol.dataReceived(self._held.pop(0))

    def loseWriteConnection(self) -> None:
        """All was sent."""
        self.abortConnection()

    def loseConnection(self) -> None:
        """All was sent, and nothing is to be read."""
        self.abortConnection()

    def abortConnection(self) -> None:
        """It is over."""
        if not self._over:
            self._over = True
            self._ended()
            # As for sockets, whoever closes is told in a later turn.
            self._clock.callLater(0, self._lose)

    def end(self) -> None:
        """The page is gone."""
        if not self._over:
            self._over = True
            self._lose()

    def _lose(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self._protocol.connectionLost(Failure(ConnectionDone()))
