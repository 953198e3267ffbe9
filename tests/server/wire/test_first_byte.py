"""One port, several wires: the first byte decides."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.transports import TcpTransport
from walt.server.adapters.tls.authority import Authority
from walt.server.adapters.tls.contexts import ServerTls
from walt.server.wire.connections import DOORS, Connections, Kind, Limits, Share
from walt.server.wire.first_byte import PATIENCE, SwitchFactory, Wire, rpc_wires
from walt.server.wire.peers import Identity, Origins


class Recorder(Protocol):
    """Keeps what it gets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = True


class Transport(TcpTransport):
    """A TCP connection from `peer`."""

    peer = "192.168.1.7"
    bufferSize = 0

    def getPeer(self) -> Any:
        return IPv4Address("TCP", self.peer, 1)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass


class SwitchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.chosen: list[Recorder] = []
        self.transport = Transport()
        self.connections = Connections(DOORS, lambda address: Kind.NODE)
        self.tls = ServerTls()
        self.switch = SwitchFactory(
            rpc_wires(self.maker("amp"), self.maker("legacy")),
            Origins(IPv4Network("192.168.1.0/24"), None),  # type: ignore[arg-type]
            self.connections, self.tls, self.clock, 16384,
        )
        self.protocol = self.switch.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def maker(self, name: str) -> Wire:
        def make(identity: Identity) -> Recorder:
            self.assertEqual(identity, Identity("walt-net", "192.168.1.7"))
            self.chosen.append(Recorder(name))
            return self.chosen[-1]

        return make

    def test_amp(self) -> None:
        """A zero byte: AMP, which gets every byte."""
        self.protocol.dataReceived(b"\0")
        self.protocol.dataReceived(b"\x05hello")
        self.assertEqual([(one.name, one.data) for one in self.chosen], [("amp", b"\0\x05hello")])

    def test_legacy(self) -> None:
        """A digit or a letter: the line protocol."""
        for data in (b"10\n", b"REQ_API_SESSION\n"):
            self.setUp()
            self.protocol.dataReceived(data)
            self.assertEqual([(one.name, one.data) for one in self.chosen], [("legacy", data)])

    def test_anything_else(self) -> None:
        """Other first bytes end the connection."""
        for first in (b"\x01", b" ", b"\n", b"\xff", b"(", b"\xe9"):
            self.setUp()
            self.protocol.dataReceived(first + b"x")
            self.assertTrue(self.transport.aborted, first)
            self.assertEqual(self.chosen, [])

    def test_silence(self) -> None:
        """A peer that says nothing is not kept."""
        self.clock.advance(PATIENCE + 1)
        self.assertTrue(self.transport.aborted)

    def test_no_timer_is_left(self) -> None:
        """Neither after the choice, nor when the peer leaves before."""
        self.protocol.dataReceived(b"1")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.setUp()
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end_is_passed_on(self) -> None:
        """The chosen protocol learns the end of the connection."""
        self.protocol.dataReceived(b"1")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.chosen[0].lost)

    def test_too_many(self) -> None:
        """An address has a limit, the whole server too; what ends makes place."""
        limits = Limits(3, {Kind.NODE: Share(2, 3)})
        self.patch(self.connections, "_limits", limits)
        one, two, three = (self.another("192.168.1.7") for _ in range(3))
        self.assertFalse(one.transport.aborted)  # type: ignore[union-attr]
        self.assertTrue(two.transport.aborted)  # type: ignore[union-attr]
        two.dataReceived(b"10\n")
        self.assertEqual(self.chosen, [])
        self.assertEqual((self.connections.open, self.connections.refused), (2, 2))
        for protocol in (two, three):
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(self.another("192.168.1.8").transport.aborted)  # type: ignore[union-attr]
        self.assertTrue(self.another("192.168.1.9").transport.aborted)  # type: ignore[union-attr]
        one.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(self.another("192.168.1.9").transport.aborted)  # type: ignore[union-attr]

    def test_slow_handshake(self) -> None:
        """The handshake and the first byte inside of it have the same time as a first byte."""
        authority = Authority(Path(self.mktemp()), ["server.example"])
        authority.prepare(1.8e9)
        self.tls.reload(*authority.server_files, authority.trusted())
        protocol = self.another("192.168.1.7")
        protocol.dataReceived(b"\x16\x03\x01\x02\x00\x01")
        self.clock.advance(PATIENCE - 1)
        self.assertFalse(protocol.transport.aborted)  # type: ignore[union-attr]
        self.clock.advance(1)
        self.assertTrue(protocol.transport.aborted)  # type: ignore[union-attr]
        self.assertEqual(self.chosen, [])

    def test_idle(self) -> None:
        """A node that has been silent for too long on the RPC port is closed."""
        self.switch.idle = 60
        idle, busy = self.another("192.168.1.7"), self.another("192.168.1.7")
        for protocol in (idle, busy):
            protocol.dataReceived(b"10\n")
        busy.dataReceived(b"NSAPI\n")
        self.clock.advance(PATIENCE)
        self.assertTrue(idle.transport.aborted)  # type: ignore[union-attr]
        self.clock.advance(29)
        self.assertFalse(busy.transport.aborted)  # type: ignore[union-attr]
        self.clock.advance(2)
        self.assertTrue(busy.transport.aborted)  # type: ignore[union-attr]
        for protocol in (idle, busy):
            protocol.connectionLost(Failure(ConnectionDone()))

    def another(self, peer: str) -> Protocol:
        """Return what serves one more connection."""
        protocol = self.switch.buildProtocol(None)
        transport = Transport()
        transport.peer = peer
        protocol.makeConnection(transport)
        return protocol
