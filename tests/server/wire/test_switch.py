"""One port, several wires: the first byte decides."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.transports import TcpTransport
from walt.server.wire.switch import PATIENCE, Switch, SwitchFactory


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


class SwitchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.chosen: list[Recorder] = []
        self.transport = TcpTransport()
        self.switch = SwitchFactory(self.maker("amp"), self.maker("legacy"), self.clock)
        protocol = self.switch.buildProtocol(None)
        assert isinstance(protocol, Switch)
        self.protocol = protocol
        self.protocol.makeConnection(self.transport)

    def maker(self, name: str):  # type: ignore[no-untyped-def]
        def make(transport: object) -> Recorder:
            self.assertIs(transport, self.transport)
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
        for first in (b"\x01", b"\x16", b" ", b"\n", b"\xff", b"(", b"\xe9"):
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
