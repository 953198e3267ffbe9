"""A small platform in memory, for the stream requests."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Network
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.fakes.devices import FakeDeviceStore
from tests.fakes.log_store import FakeLogStore
from tests.fakes.sessions import FakeSessions
from tests.fakes.transports import TcpTransport
from walt.common import frames
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.lines import LogService, PlatformLog
from walt.server.domain.nodes.issuers import LogIssuers
from walt.server.domain.nodes.plans import OpenSessions
from walt.server.domain.nodes.status import BootStatus
from walt.server.streams.base import Peer, StreamProtocol
from walt.server.streams.dump import LogDumps
from walt.server.streams.ingest import LogIngestion
from walt.server.streams.node_command import (
    DeviceShellRequest,
    NodeCommandRequest,
    NodeCommands,
    PingRequest,
)
from walt.server.streams.notify import BootNotifications
from walt.server.streams.registry import requests
from walt.server.streams.tcp_relay import TcpRequest
from walt.server.streams.transfers import TarFromNodeRequest, TarToNodeRequest

EPOCH = 1_700_000_000.0
SERVER = Device("52:54:00:00:00:00", "walt-server", "server", ip="192.168.1.1")
NODE = Device(
    "52:54:00:00:00:01", "node-1", "node", ip="192.168.1.2", virtual=True, model="pc-x86-64",
    image="alice/img:latest",
)
SWITCH = Device("52:54:00:00:00:02", "switch-1", "switch", ip="192.168.1.3")
CLIENT = Peer(None, True, "alice")
FROM_NODE = Peer(NODE.ip, False)


class Platform:
    """Registry, logs, status and the stream port."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(EPOCH)
        self.device_store = FakeDeviceStore(SERVER, NODE, SWITCH)
        self.store = FakeLogStore(block=100)
        self.registry = DeviceRegistry(self.device_store, IPv4Network("192.168.1.0/24"))
        Deferred.fromCoroutine(self.registry.load())
        self.logs = LogService(self.store, self.clock, self.clock.seconds)
        self.issuers = LogIssuers(self.registry, self.logs.former)
        self.platform = PlatformLog(self.logs, lambda: SERVER.mac)
        self.status = BootStatus(
            self.registry, self.device_store, self.platform, self.clock, 180,
        )
        self.sessions = FakeSessions()
        self.open_sessions = OpenSessions(self.clock)
        commands = self.commands(self.sessions)
        self.ingestion = LogIngestion(self.registry, self.logs)
        self.dumps = LogDumps(self.logs, self.issuers)
        self.requests = requests({
            "REQ_NEW_INCOMING_LOGS": self.ingestion.request,
            "REQ_DUMP_LOGS": self.dumps.request,
            "REQ_NODE_CMD": partial(NodeCommandRequest, commands),
            "REQ_DEVICE_PING": partial(PingRequest, commands),
            "REQ_TAR_FROM_NODE": partial(TarFromNodeRequest, commands),
            "REQ_TAR_TO_NODE": partial(TarToNodeRequest, commands),
            "REQ_TCP_TO_NODE": partial(
                TcpRequest, self.registry, self.open_sessions, any_reactor
            ),
            "REQ_NOTIFY_BOOTUP_STATUS": BootNotifications(
                self.registry, self.status, self.clock
            ).request,
            "REQ_DEVICE_SHELL": partial(DeviceShellRequest, commands),
        })

    def commands(self, sessions: Any) -> NodeCommands:
        """Return what requests of commands share, with these sessions."""
        return NodeCommands(self.registry, sessions, self.platform, self.open_sessions)

    def protocol(self, peer: Peer) -> StreamProtocol:
        """Return what serves a connection that comes from `peer`."""
        return StreamProtocol(self.requests, peer, self.clock)

    def connect(self, peer: Peer, data: bytes = b"") -> Connection:
        """Open a connection and send its first bytes."""
        return Connection(self, peer, data)

    def stored(self, stream: str) -> list[tuple[float, str]]:
        """Flush, and return the stored (timestamp, line) of a stream of the node."""
        Deferred.fromCoroutine(self.logs.flush())
        return [
            (one.timestamp, one.line) for one in self.store.lines
            if one.stream == stream and one.issuer == NODE.mac
        ]

    def lines(self, stream: str) -> list[str]:
        """Flush, and return the stored lines of a stream of the node."""
        return [line for _, line in self.stored(stream)]


class Connection:
    """The peer's end of one stream connection."""

    def __init__(self, platform: Platform, peer: Peer, data: bytes = b"") -> None:
        self.transport = TcpTransport()
        self.protocol: Any = platform.protocol(peer)
        self.protocol.makeConnection(self.transport)
        self._decoder = frames.Decoder()
        if data:
            self.send(data)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.protocol.dataReceived(data)

    def frame(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a frame."""
        self.send(frames.encode(kind, payload))

    def raw(self) -> bytes:
        """Return what was received since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Return the frames received since the last call."""
        return list(self._decoder.feed(self.raw()))

    @property
    def closed(self) -> bool:
        """Whether the server closed, properly or not."""
        return bool(self.transport.disconnecting or self.transport.aborted)

    def leave(self) -> None:
        """Close the connection from the peer's side."""
        self.protocol.connectionLost(Failure(ConnectionDone()))
