"""One port, several wires, told apart by their first byte (design D6).

The RPC port speaks TLS, plain AMP or the legacy lines; the stream port TLS or
request lines. What is inside TLS is told apart in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from walt.server.wire.connections import Connections
from walt.server.wire.peers import Identity, Origins
from walt.server.wire.policy import TRUSTED

AMP_BYTE = 0x00
TLS_BYTE = 0x16  # a handshake record (RFC 8446 §5.1)
PATIENCE = 30.0  # seconds to send a first byte; inside TLS, the handshake included

Wire = Callable[[Identity], Protocol]
Choose = Callable[[int], "Wire | None"]


class Switch(Protocol):
    """Waits for the first byte, then becomes the protocol it announces."""

    def __init__(self, factory: SwitchFactory, inside_tls: bool) -> None:
        self._factory = factory
        self._inside_tls = inside_tls
        self._timer: Any = None
        self._chosen: Protocol | None = None
        self._serial: str | None = None
        self._address: str | None = None
        self._counted = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if not self._inside_tls:
            if not self._admitted(transport):
                transport.abortConnection()
                return
            transport.bufferSize = self._factory.read_at_once
        self._timer = self._factory.clock.callLater(PATIENCE, transport.abortConnection)

    def _admitted(self, transport: Any) -> bool:
        self._address = getattr(transport.getPeer(), "host", None)
        self._counted = self._factory.admit(self._address)
        if self._counted and self._address is not None:
            # A peer that vanished is found, however long its connection was silent.
            transport.setTcpKeepAlive(True)
        return self._counted

    def dataReceived(self, data: bytes) -> None:
        if self._chosen is None:
            if self._timer is None:
                return  # refused
            self._timer.cancel()
            chosen = self._choose(data[0])
            transport: Any = self.transport
            if chosen is None:
                transport.abortConnection()
                return
            self._chosen = chosen
            chosen.makeConnection(transport)
        elif self._timer.active():
            self._timer.reset(self._factory.idle)
        self._chosen.dataReceived(data)

    def _choose(self, first: int) -> Protocol | None:
        factory = self._factory
        if first == TLS_BYTE and not self._inside_tls:
            return factory.tls.buildProtocol(None)
        wire = factory.choose(first)
        if wire is None:
            return None
        identity = factory.origins.of(self.transport)
        if factory.idle is not None and identity.origin not in TRUSTED:
            transport: Any = self.transport
            self._timer = factory.clock.callLater(PATIENCE, transport.abortConnection)
        self._serial = identity.serial
        factory.connections.hold(self._serial, self.transport)
        return wire(identity)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._counted:
            self._factory.connections.release(self._address)
        self._factory.connections.let_go(self._serial, self.transport)
        if self._chosen is not None:
            self._chosen.connectionLost(reason)


class SwitchFactory(Factory):
    """Makes the protocols of a listener; `choose` gives the wire that a first byte announces.

    At most `read_at_once` bytes of a peer are handled in a turn of the reactor.
    Peers that are no clients are closed after `idle` seconds of silence, sooner if they
    stop after their first bytes.
    """

    noisy = False

    def __init__(
        self, choose: Choose, origins: Origins, connections: Connections,
        tls: IOpenSSLServerConnectionCreator, clock: IReactorTime, read_at_once: int,
        idle: float | None = None,
    ) -> None:
        self.choose = choose
        self.idle = idle
        self.read_at_once = read_at_once
        self.origins = origins
        self.connections = connections
        self.clock = clock
        inside = Factory()
        inside.noisy = False
        inside.buildProtocol = lambda addr: Switch(self, True)  # type: ignore[method-assign]
        self.tls: Any = TLSMemoryBIOFactory(tls, False, inside)
        self.tls.noisy = False

    def admit(self, address: str | None) -> bool:
        """Tell whether one more connection from an address may be served."""
        return self.connections.admit(address)

    def buildProtocol(self, addr: Any) -> Protocol:
        return Switch(self, False)


def rpc_wires(amp: Wire, legacy: Wire) -> Choose:
    """Return how the RPC port chooses."""

    def choose(first: int) -> Wire | None:
        if first == AMP_BYTE:
            return amp
        return legacy if _is_word(first) else None

    return choose


def stream_wires(stream: Wire) -> Choose:
    """Return how the stream port chooses."""

    def choose(first: int) -> Wire | None:
        return stream if _is_word(first) else None

    return choose


def _is_word(first: int) -> bool:
    return chr(first).isascii() and chr(first).isalnum()
