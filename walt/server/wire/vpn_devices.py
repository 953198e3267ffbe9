"""The unix socket where ends of tunnels get their network devices (spec node-protocols §9.5).

The endpoint of a session says whose certificate it has: `{"hello": IDENTITY}` and a newline.
It gets a line and, with it, the descriptor of a device (SCM_RIGHTS, unix(7)); it answers with
a line, not sooner, and keeps the connection: the end of that is the end of the tunnel, from
either side. A refusal is a line without a descriptor.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPullProducer,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.unix import Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common.errors import WaltError
from walt.common.texts import load_json
from walt.server.domain.vpn.interfaces import IVpnTaps
from walt.server.domain.vpn.tunnels import Tunnels

_log = Logger()

MAX_LINE = 1024
PATIENCE = 15.0  # seconds for an endpoint to say its part
MAX_IDENTITY = 200


@implementer(IPullProducer)
class _Handover:
    """Sends a descriptor and a line, and calls `left` when both have left this process.

    A transport keeps the number of a descriptor until it sends it, and asks for more when it has
    nothing left to send.
    """

    def __init__(
        self, transport: Server, tap: int, line: bytes, left: Callable[[], None]
    ) -> None:
        self._transport, self._left = transport, left
        self._tap, self._line = tap, line
        self._queued = False

    def resumeProducing(self) -> None:
        """Send, then tell."""
        if self._queued:
            self._transport.unregisterProducer()
            self._left()
            return
        self._queued = True
        self._transport.sendFileDescriptor(self._tap)
        self._transport.write(self._line)

    def stopProducing(self) -> None:
        """The connection is lost, which the protocol hears."""


class DeviceProtocol(Protocol):
    """One end of a tunnel."""

    transport: Server

    def __init__(self, tunnels: Tunnels, taps: IVpnTaps, clock: IReactorTime) -> None:
        self._tunnels, self._taps, self._clock = tunnels, taps, clock
        self._data = b""
        self._lost = False
        self._timer: IDelayedCall | None = None
        self._opening: Deferred[None] | None = None
        self._tap: int | None = None  # until it has left to the endpoint
        self._sent = False
        self._open: tuple[str, str] | None = None  # identity and device

    def connectionMade(self) -> None:
        self._timer = self._clock.callLater(PATIENCE, self.transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        if self._opening is not None and not self._sent:
            self.transport.abortConnection()  # it has nothing to answer to
            return
        self._data += data
        if len(self._data) > MAX_LINE:
            self.transport.abortConnection()
            return
        line, newline, self._data = self._data.partition(b"\n")
        if not newline:
            self._data = line
        elif self._opening is not None:
            self._rest()
        elif self._data:
            self.transport.abortConnection()
        else:
            self._opening = Deferred.fromCoroutine(self._hello(line))
            self._opening.addErrback(self._failed)

    def _has_left(self) -> None:
        """The device is on its way to the endpoint, which is the only one that has it now."""
        self._sent = True
        self._close_tap()

    def _rest(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _close_tap(self) -> None:
        tap, self._tap = self._tap, None
        if tap is not None:
            os.close(tap)

    async def _hello(self, line: bytes) -> None:
        identity = _identity(line)
        if identity is None:
            self.transport.abortConnection()
            return
        await self._tunnels.admit(identity)
        if self._lost:  # it must not end the tunnel that its board has meanwhile
            return
        device = self._tunnels.device_name()
        self._open = identity, device
        self._tunnels.opened(identity, device, self._end)
        self._tap = await self._taps.open(device)
        if self._lost:
            self._close_tap()
            return
        line = f"{device}\n".encode()
        handover = _Handover(self.transport, self._tap, line, self._has_left)
        self.transport.registerProducer(handover, streaming=False)

    def _end(self) -> None:
        if not self._lost:
            self.transport.abortConnection()

    def _failed(self, failure: Failure) -> None:
        if failure.check(WaltError):
            text = str(failure.value)
        else:
            _log.failure("opening a tunnel", failure)
            text = "internal error; see the log of the server"
        if not self._lost:
            self.transport.write(f"{text}\n".encode())
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._lost = True
        self._rest()
        self._close_tap()
        if self._open is not None:
            self._tunnels.closed(*self._open)


def _identity(line: bytes) -> str | None:
    try:
        said = load_json(line)
    except ValueError:
        return None
    identity = said.get("hello") if isinstance(said, dict) else None
    if not isinstance(identity, str) or not 0 < len(identity) <= MAX_IDENTITY:
        return None
    return identity if identity.isprintable() else None


class DeviceFactory(Factory):
    """Makes one protocol for each end of a tunnel."""

    noisy = False

    def __init__(self, tunnels: Tunnels, taps: IVpnTaps, clock: IReactorTime) -> None:
        self._tunnels, self._taps, self._clock = tunnels, taps, clock

    def buildProtocol(self, addr: IAddress | None) -> DeviceProtocol:
        """Return the protocol of a connection."""
        return DeviceProtocol(self._tunnels, self._taps, self._clock)
