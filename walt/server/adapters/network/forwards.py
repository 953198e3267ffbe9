"""TCP forwards to devices, with back-pressure both ways (spec server §3.11)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common.errors import Conflict, in_words
from walt.server.domain.network.interfaces import IForwarder
from walt.server.runtime.reactors import IReactor

_log = Logger()

CONNECT_TIMEOUT = 2  # seconds


@implementer(IHalfCloseableProtocol)
class _End(Protocol):
    """One end of a relayed connection; `peer` is the other one."""

    transport: Any = None

    def __init__(self) -> None:
        self.peer: _End | None = None
        self._ended = 0

    def pair(self, peer: _End) -> None:
        """Relay from now on, each end slowing the other one down when needed."""
        for end, other in ((self, peer), (peer, self)):
            end.peer = other
            end.transport.registerProducer(other.transport, True)

    def dataReceived(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def readConnectionLost(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.loseWriteConnection()
            self._ended += 1
            if self.peer._ended:
                self.end()

    def writeConnectionLost(self) -> None:
        """Nothing to do: the other direction goes on."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        peer, self.peer = self.peer, None
        if peer is not None and peer.transport is not None:
            peer.peer = None
            peer.transport.unregisterProducer()
            peer.transport.loseConnection()

    def end(self) -> None:
        """Close both ends once what was received is sent."""
        for end in (self, self.peer):
            if end is not None and end.transport is not None:
                end.transport.unregisterProducer()
                end.transport.loseConnection()


class _Entry(_End):
    """The end on the side of the one who connects to the server."""

    factory: _Forward

    def connectionMade(self) -> None:
        self.factory.connections.add(self)
        self.transport.pauseProducing()
        connecting = self.factory.endpoint.connect(Factory.forProtocol(_End))
        connecting.addCallbacks(self._reached, self._unreachable)

    def _reached(self, device: Any) -> None:
        if self not in self.factory.connections:
            device.transport.abortConnection()
            return
        self.pair(device)
        self.transport.resumeProducing()

    def _unreachable(self, failure: Failure) -> None:
        _log.info(
            "forward of port {port}: {why}", port=self.factory.port, why=in_words(failure.value)
        )
        if self.transport is not None:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)
        super().connectionLost(reason)


class _Forward(ServerFactory):
    protocol: Any = _Entry

    def __init__(self, reactor: IReactor, port: int, address: str, device_port: int) -> None:
        self.port = port
        self.endpoint = TCP4ClientEndpoint(reactor, address, device_port, CONNECT_TIMEOUT)
        self.connections: set[_Entry] = set()
        self.listening: Any = None


@implementer(IForwarder)
class Forwards:
    """The forwards of the server.

    `interface` is the address to listen on (all by default); `opening` gives a
    context in which the listening socket is opened: the host's network, for a
    platform in a namespace of its own.
    """

    def __init__(
        self, reactor: IReactor, *, interface: str = "",
        opening: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._reactor = reactor
        self._interface = interface
        self._opening = opening
        self._forwards: dict[int, _Forward] = {}

    def is_free(self, server_port: int) -> bool:
        """Tell whether the port can be opened now."""
        if server_port in self._forwards:
            return False
        with self._opening(), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((self._interface, server_port))
                trial.listen(1)
            except OSError:
                return False
        return True

    async def open(self, server_port: int, address: str, device_port: int) -> None:
        """Forward connections to `device_port` of `address`. Raises Conflict when in use."""
        if server_port in self._forwards:
            raise Conflict(f"port {server_port} of the server is forwarded already")
        forward = _Forward(self._reactor, server_port, address, device_port)
        try:
            with self._opening():
                forward.listening = self._reactor.listenTCP(
                    server_port, forward, interface=self._interface
                )
        except CannotListenError:
            raise Conflict(
                f"port {server_port} of the server is in use; choose another"
            ) from None
        self._forwards[server_port] = forward

    async def close(self, server_port: int) -> None:
        """Stop listening and end the connections through this port; absent is fine."""
        forward = self._forwards.pop(server_port, None)
        if forward is None:
            return
        for connection in list(forward.connections):
            if connection.transport is not None:
                connection.transport.abortConnection()
        await maybeDeferred(forward.listening.stopListening)
