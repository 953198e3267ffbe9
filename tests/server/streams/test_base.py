"""The request line, silence, and what clients must say first."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.server.streams.platform import CLIENT, FROM_NODE, Platform
from walt.common import frames
from walt.server.domain.shares import Shares
from walt.server.streams.base import HEADER_PATIENCE, LINGER, MAX_REQUEST_LINE, Peer


def result(connection) -> dict:  # type: ignore[no-untyped-def,type-arg]
    """Return the result frame of a connection."""
    [(kind, payload)] = connection.frames()
    assert kind == frames.RESULT, kind
    return dict(json.loads(payload))


class RequestLineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()

    def test_by_number_and_by_name(self) -> None:
        """A request is named either way, in any segments."""
        for name in (b"14\n", b"REQ_NOTIFY_BOOTUP_STATUS\n", b"14\r\n"):
            connection = self.platform.connect(FROM_NODE)
            for byte in name:
                connection.send(bytes([byte]))
            self.assertEqual(connection.raw(), b"OK\n", name)

    def test_unknown(self) -> None:
        """Closed without a word; the API session is not on this port."""
        for name in (b"99\n", b"REQ_API_SESSION\n", b"\n", b"\xff\xfe\n", b"-1\n"):
            connection = self.platform.connect(FROM_NODE, name)
            self.assertTrue(connection.closed, name)
            self.assertEqual(connection.raw(), b"")

    def test_too_long(self) -> None:
        """A line without end is cut off."""
        connection = self.platform.connect(FROM_NODE, b"R" * (MAX_REQUEST_LINE + 1))
        self.assertTrue(connection.transport.aborted)

    def test_silence(self) -> None:
        """A peer that does not complete its header is not kept: nothing, half a line, half a
        log header, half the parameters of a client."""
        for peer, data in (
            (FROM_NODE, b""), (FROM_NODE, b"REQ_NEW"), (FROM_NODE, b"0\nstream\n"),
            (CLIENT, b"REQ_DUMP_LOGS\n{"),
        ):
            connection = self.platform.connect(peer, data)
            self.platform.clock.advance(HEADER_PATIENCE + 1)
            self.assertTrue(connection.transport.aborted, data)

    def test_complete_header(self) -> None:
        """Once the header is complete, silence is fine."""
        for peer, data in (
            (FROM_NODE, b"0\nstream\nNO_TIMESTAMPS\n"), (FROM_NODE, b"14\n\n"),
            (CLIENT, b"REQ_DUMP_LOGS\n" + b'{"realtime": true, "issuers": "server"}\n'),
        ):
            connection = self.platform.connect(peer, data)
            self.platform.clock.advance(10 * HEADER_PATIENCE)
            self.assertFalse(connection.closed, data)

    def test_result_and_unread_input(self) -> None:
        """After the result, what the peer still sends is ignored, until it leaves or for long."""
        connection = self.platform.connect(CLIENT, b"REQ_DEVICE_PING\n{\"device\": \"nobody\"}\n")
        self.assertEqual(result(connection)["code"], "NOT_FOUND")
        connection.send(b"\xff" * 100_000)
        self.assertFalse(connection.transport.aborted)
        self.platform.clock.advance(LINGER)
        self.assertTrue(connection.transport.aborted)

    def test_streams_of_a_user(self) -> None:
        """There is a limit; a stream that ends makes place."""
        peer = Peer(None, True, "alice", shares=Shares(1, "streams"))
        live = b"REQ_DUMP_LOGS\n" + b'{"realtime": true, "issuers": "server"}\n'
        first = self.platform.connect(peer, live)
        refused = self.platform.connect(peer, live)
        self.assertEqual(result(refused)["code"], "LIMIT_EXCEEDED")
        refused.leave()
        first.leave()
        again = self.platform.connect(peer, live)
        self.assertFalse(again.closed)
        again.leave()

    def test_no_timer_is_left(self) -> None:
        """A peer that leaves early leaves nothing behind."""
        self.platform.connect(FROM_NODE, b"RE").leave()
        self.assertEqual(self.platform.clock.getDelayedCalls(), [])

    @given(st.binary(max_size=200), st.booleans())
    def test_garbage(self, data: bytes, trusted: bool) -> None:
        """Any bytes: nothing is raised."""
        for start in (b"", b"0\n", b"1\n", b"4\n", b"14\n"):
            connection = self.platform.connect(CLIENT if trusted else FROM_NODE, start)
            if not connection.closed:
                connection.send(data)
            connection.leave()


class ParametersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()

    def ask(self, line: bytes, peer: Peer = CLIENT):  # type: ignore[no-untyped-def]
        return self.platform.connect(peer, b"REQ_NODE_CMD\n" + line + b"\n")

    def test_untrusted(self) -> None:
        """Nodes and unknown machines may not make client requests."""
        for peer in (FROM_NODE, Peer("192.168.1.99", False), Peer(None, False)):
            connection = self.ask(b'{"node": "node-1", "username": "alice"}', peer)
            self.assertEqual(result(connection)["code"], "DENIED")
            self.assertTrue(connection.closed)
            self.assertEqual(self.platform.sessions.made, [])

    def test_not_json(self) -> None:
        """INVALID: something else than one JSON object."""
        for line in (b"", b"[]", b"{", b'"x"', b"\xff", b"[" * 50_000, b"NaN"):
            connection = self.ask(line)
            self.assertEqual(result(connection)["code"], "INVALID", line[:20])
            self.assertTrue(connection.closed)

    def test_user(self) -> None:
        """The account of the socket, unless a valid user is stated."""
        for user in (3, "Bad User", "-x", ["a"]):
            connection = self.ask(json.dumps({"node": "node-1", "username": user}).encode())
            self.assertEqual(result(connection)["code"], "INVALID", user)
        connection = self.ask(b'{"node": "node-1"}', Peer(None, True, None))
        self.assertEqual(result(connection)["code"], "INVALID")

    def test_too_long(self) -> None:
        """More than 64 KiB of parameters are cut off, with or without their end."""
        for end in (b"", b"\n"):
            line = b'{"node": "' + b"x" * frames.MAX_PARAMETERS + b'"}'
            connection = self.platform.connect(CLIENT, b"REQ_NODE_CMD\n" + line + end)
            self.assertTrue(connection.transport.aborted)

    def test_bad_frame(self) -> None:
        """Bytes that are no frame end the connection."""
        connection = self.ask(b'{"node": "node-1"}')
        connection.send(b"\0\0\0\0\0")
        self.assertTrue(connection.transport.aborted)

    def test_bug_is_contained(self) -> None:
        """An undeclared error: INTERNAL, without its text, which the log has."""
        self.platform.sessions.error = RuntimeError("a bug")
        answer = result(self.ask(b'{"node": "node-1"}'))
        self.assertEqual(answer["code"], "INTERNAL")
        self.assertNotIn("a bug", answer["error"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
