"""REQ_TCP_TO_NODE and REQ_WEB: one connection to a device (S-158) or to our pages, for a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common import frames
from walt.common.errors import Invalid, Unavailable
from walt.common.ports import NODE_SERVICE
from walt.server.domain.access.web_model import Way, way_line
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.nodes.plans import OpenSessions
from walt.server.runtime.producing import Pace
from walt.server.streams.base import FramedRequest, Peer, StreamProtocol

PATIENCE = 10  # seconds to connect
SSH = 22


@implementer(IHalfCloseableProtocol)
class _Device(Protocol):
    """The connection to the device."""

    def __init__(self, request: RelayRequest) -> None:
        self._request = request

    def connectionMade(self) -> None:
        self._request.connected(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._request.data(data)

    def readConnectionLost(self) -> None:
        """The device sends no more."""
        self._request.device_ended()

    def writeConnectionLost(self) -> None:
        """The device reads no more: the end of the connection follows."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._request.finished()


def _pace(transport: Any) -> Pace:
    """Return what makes one side wait while the other is late."""
    return Pace(transport.pauseProducing, transport.resumeProducing)


class RelayRequest(FramedRequest):
    """Bytes both ways; an end-of-input frame is a half-close. Subclasses say where to."""

    def __init__(self, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(connection, peer)
        self._device: Any = None
        self._early: list[tuple[bytes, bytes]] = []
        self._ended_sides = 0
        self._done = False

    def greeting(self) -> bytes:
        """Return what the other side is told before the client's bytes."""
        return b""

    def connect(self, endpoint: IStreamClientEndpoint, what: str) -> None:
        """Begin; `what` names the other side in an error."""
        self._client.pauseProducing()  # until there is somebody to send to
        Deferred.fromCoroutine(self._connect(endpoint, what))

    @property
    def _client(self) -> Any:
        return self.connection.transport

    async def _connect(self, endpoint: IStreamClientEndpoint, what: str) -> None:
        try:
            await endpoint.connect(Factory.forProtocol(lambda: _Device(self)))
        except ConnectError as error:
            if not self._done:
                self._done = True
                reason = error.args[0] if error.args else str(error)
                self.fail(Unavailable(f"could not connect to {what}: {reason}"))

    def connected(self, transport: Any) -> None:
        """The device answered."""
        if self._done:
            transport.abortConnection()
            return
        self._device = transport
        transport.write(self.greeting())
        self._client.registerProducer(_pace(transport), True)
        transport.registerProducer(_pace(self._client), True)
        for kind, payload in self._early:
            self.frame(kind, payload)
        self._early.clear()
        self._client.resumeProducing()

    def frame(self, kind: bytes, payload: bytes) -> None:
        if self._device is None:
            if not self._done:
                self._early.append((kind, payload))
        elif kind == frames.DATA:
            self._device.write(payload)
        elif kind == frames.END:
            # With a producer that is paused, the end would never be sent.
            self._device.unregisterProducer()
            self._client.resumeProducing()
            self._device.loseWriteConnection()
            self._end_of_one_side()

    def device_ended(self) -> None:
        """Nothing more comes from the device."""
        self.connection.write(frames.encode(frames.END))
        self._end_of_one_side()

    def _end_of_one_side(self) -> None:
        self._ended_sides += 1
        if self._ended_sides == 2:
            self._device.loseConnection()

    def finished(self) -> None:
        """The connection to the device is over."""
        self._device = None
        if not self._done:
            self._done = True
            self._client.unregisterProducer()
            self.result(status=0)

    def lost(self) -> None:
        self._done = True
        device, self._device = self._device, None
        if device is not None:
            device.abortConnection()


class TcpRequest(RelayRequest):
    """Parameters: device, port."""

    def __init__(
        self, registry: DeviceRegistry, sessions: OpenSessions, reactor: IReactorTime,
        connection: StreamProtocol, peer: Peer,
    ) -> None:
        super().__init__(connection, peer)
        self._registry = registry
        self._sessions = sessions
        self._reactor = reactor

    def opened(self, parameters: dict[str, Any]) -> None:
        name, port = parameters.get("device"), parameters.get("port")
        if not isinstance(name, str):
            raise Invalid("device must be a text")
        if type(port) is not int or not 0 < port < 65536:
            raise Invalid("a port is a number from 1 to 65535")
        if port == NODE_SERVICE:
            # Nodes obey the server there: by this way, whoever asks would be the server.
            raise Invalid(
                f"port {port} of nodes is for the server alone; use walt node reboot, or shell"
            )
        device = self._registry.named(name)
        if device.ip is None:
            raise Invalid(f"the address of {name} is not known yet")
        if device.type == "server" or not device.in_network(self._registry.subnet):
            raise Invalid(f"{name} is not a device of {self._registry.subnet}")
        kind = "ssh" if port == SSH else f"port {port}"
        self.connection.at_end(self._sessions.opened(device.mac, self.username, kind))
        self.connect(
            TCP4ClientEndpoint(self._reactor, device.ip, port, timeout=PATIENCE),
            f"{device.ip} port {port}",
        )


class WebRequest(RelayRequest):
    """Our pages, for a browser of the client's machine.

    Who it is, its cookie and key tell; they are good for what this client asked for alone.
    """

    def __init__(
        self, socket: Path, reactor: IReactorTime, connection: StreamProtocol, peer: Peer
    ) -> None:
        super().__init__(connection, peer)
        self._socket = socket
        self._reactor = reactor

    def greeting(self) -> bytes:
        return way_line(Way(self.username, self.peer.serial))

    def opened(self, parameters: dict[str, Any]) -> None:
        self.connect(
            UNIXClientEndpoint(self._reactor, str(self._socket), timeout=PATIENCE),
            "the web pages of the server",
        )
