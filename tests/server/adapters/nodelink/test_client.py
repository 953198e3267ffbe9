from __future__ import annotations

import errno
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from walt.server.adapters.nodelink.client import IMPROPER, PATIENCE, NodeLink, parse_reply


class ReplyTests(SynchronousTestCase):
    def test_replies(self) -> None:
        """OK, KO with a reason, and anything else."""
        for line, reason in (
            ("OK", None), ("OK done", None), ("KO cannot reboot", "cannot reboot"),
            ("KO", IMPROPER), ("", IMPROPER), ("hello", IMPROPER),
        ):
            self.assertEqual(parse_reply(line), reason)

    @given(st.text(max_size=100))
    def test_any_reply(self, line: str) -> None:
        """Any line is a success or a reason."""
        self.assertTrue(parse_reply(line) is None or parse_reply(line))


class TimeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.answer = Deferred.fromCoroutine(NodeLink(self.reactor).request("10.0.0.5", "REBOOT"))
        host, port, self.factory, timeout, _ = self.reactor.tcpClients[0]
        self.assertEqual((host, port, timeout), ("10.0.0.5", 12346, 15))

    def connect(self) -> tuple[Any, Any]:
        """Return protocol and transport of an accepted connection."""
        from twisted.internet.testing import StringTransport

        transport = StringTransport()
        protocol = self.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        return protocol, transport

    def test_request(self) -> None:
        """Mode and request go out; the first line decides."""
        protocol, transport = self.connect()
        self.assertEqual(transport.value(), b"MODE single\nREBOOT\n")
        protocol.dataReceived(b"O")
        protocol.dataReceived(b"K\nmore")
        self.assertIsNone(self.successResultOf(self.answer))
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """A node that says nothing is given up after 15 s."""
        _, transport = self.connect()
        self.reactor.advance(PATIENCE)
        self.assertEqual(self.successResultOf(self.answer), "Timed out waiting for reply")
        self.assertTrue(transport.disconnecting)

    def test_given_up(self) -> None:
        """Who gives a request up, early or late, is not told that the node did not answer."""
        self.answer.cancel()
        self.failureResultOf(self.answer, CancelledError)
        self.setUp()
        _, transport = self.connect()
        self.answer.cancel()
        self.failureResultOf(self.answer, CancelledError)
        self.assertTrue(transport.disconnecting)

    def test_failed_connections(self) -> None:
        """Each failure has the words that people know."""
        for reason, text in (
            (error.TimeoutError(), "Connection timed out"),
            (error.ConnectionRefusedError(), "Connection refused"),
            (error.NoRouteError(errno.EHOSTUNREACH, "…"), "No route to host"),
            (error.ConnectError("a text"), "An error occurred while connecting: a text."),
        ):
            reactor = MemoryReactorClock()
            answer = Deferred.fromCoroutine(NodeLink(reactor).request("10.0.0.5", "REBOOT"))
            reactor.tcpClients[0][2].clientConnectionFailed(None, Failure(reason))
            found = self.successResultOf(answer)
            self.assertEqual(found, text)

    def test_broken_connections(self) -> None:
        """A connection that ends before its line is an error, an endless line too."""
        for data, reason, text in (
            (b"", error.ConnectionLost(), "Broken connection"),
            (b"", error.ConnectionDone(), IMPROPER),
            (b"OK", error.ConnectionDone(), None),
        ):
            self.setUp()
            protocol, _ = self.connect()
            protocol.dataReceived(data)
            protocol.connectionLost(Failure(reason))
            self.assertEqual(self.successResultOf(self.answer), text)
        self.setUp()
        protocol, transport = self.connect()
        protocol.dataReceived(b"x" * 70_000)
        self.assertEqual(self.successResultOf(self.answer), IMPROPER)
        self.assertTrue(transport.disconnecting)


class RealTests(TestCase):
    async def test_contract(self) -> None:
        """A real connection on loopback: accepted, refused, closed."""
        from twisted.internet import reactor

        class Node(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"KO busy\n" if b"BLINK" in data else b"OK\n")

        factory = Factory.forProtocol(Node)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        link = NodeLink(reactor, port.getHost().port)
        self.assertIsNone(await link.request("127.0.0.1", "REBOOT"))
        self.assertEqual(await link.request("127.0.0.1", "BLINK 1"), "busy")
        await port.stopListening()
        self.assertEqual(await link.request("127.0.0.1", "REBOOT"), "Connection refused")
