"""One RPC port, several wires, told apart by their first byte (design D6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

AMP_BYTE = 0x00
TLS_BYTE = 0x16
PATIENCE = 30.0  # seconds to send a first byte
# A pipeline of calls is taken by pieces of about 100, which cost 40 ms: all get their turn.
READ_AT_ONCE = 16384

WireFactory = Callable[[Any], Protocol]


class Switch(Protocol):
    """Waits for the first byte, then becomes the protocol it announces."""

    def __init__(self, amp: WireFactory, legacy: WireFactory, clock: IReactorTime) -> None:
        self._amp = amp
        self._legacy = legacy
        self._clock = clock
        self._timer: Any = None
        self._chosen: Protocol | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.bufferSize = READ_AT_ONCE
        self._timer = self._clock.callLater(PATIENCE, self._abort)

    def dataReceived(self, data: bytes) -> None:
        if self._chosen is None:
            self._timer.cancel()
            chosen = self._choose(data[0])
            if chosen is None:
                self._abort()
                return
            self._chosen = chosen
            chosen.makeConnection(self.transport)
        self._chosen.dataReceived(data)

    def _choose(self, first: int) -> Protocol | None:
        if first == AMP_BYTE:
            return self._amp(self.transport)
        if chr(first).isascii() and chr(first).isalnum():
            return self._legacy(self.transport)
        if first == TLS_BYTE:
            _log.warn("TLS is not available on this port yet; use the unix socket")
        return None

    def _abort(self) -> None:
        if self.transport is not None:
            ITCPTransport(self.transport).abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._chosen is not None:
            self._chosen.connectionLost(reason)


class SwitchFactory(Factory):
    """Makes the protocols of the RPC listeners."""

    noisy = False

    def __init__(self, amp: WireFactory, legacy: WireFactory, clock: IReactorTime) -> None:
        self._amp = amp
        self._legacy = legacy
        self._clock = clock

    def buildProtocol(self, addr: Any) -> Protocol:
        return Switch(self._amp, self._legacy, self._clock)
