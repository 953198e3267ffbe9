"""WebSockets: whole messages within limits, pings, an end for what is no WebSocket."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    TextMessage,
)

from walt.server.http.websocket import (
    MAX_FRAGMENTS,
    MAX_MESSAGE,
    PATIENCE,
    PING_EVERY,
    TOO_BIG,
    User,
    WebSocket,
    binary_message,
    text_message,
)


class Wanting(User):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.got: list[str | bytes] = []
        self.ends = 0

    def text(self, message: str) -> None:
        self.got.append(message)

    def data(self, message: bytes) -> None:
        self.got.append(message)

    def drained(self) -> None:
        self.got.append("drained")

    def lost(self) -> None:
        self.ends += 1


class WebSocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.user = Wanting()
        self.socket = WebSocket(self.user, self.clock)
        self.transport = StringTransport()
        self.socket.makeConnection(self.transport)
        self.browser = Connection(ConnectionType.CLIENT)

    def say(self, *events: Event) -> None:
        """Send as a browser does."""
        for event in events:
            self.socket.dataReceived(self.browser.send(event))

    def heard(self) -> list[Event]:
        """Return what the browser was sent since the last time."""
        self.browser.receive_data(self.transport.value())
        self.transport.clear()
        return list(self.browser.events())

    def test_messages(self) -> None:
        """In any pieces, whole; of 64 KiB at most."""
        long = "x" * MAX_MESSAGE
        raw = self.browser.send(TextMessage("né")) + self.browser.send(BytesMessage(b"\0\xff"))
        for at in range(len(raw)):
            self.socket.dataReceived(raw[at:at + 1])
        self.say(TextMessage("a", message_finished=False), TextMessage("b"), TextMessage(long))
        self.assertEqual(self.user.got, ["né", b"\0\xff", "ab", long])
        self.socket.send(text_message("é"))
        self.socket.send(binary_message(b"\1"))
        self.assertEqual([one.data for one in self.heard()], ["é", b"\1"])

    def refused(self, code: int) -> None:
        """Look at the end of a connection that did wrong."""
        (end,) = self.heard()
        assert isinstance(end, CloseConnection)
        self.assertEqual(end.code, code)
        self.assertTrue(self.transport.disconnecting)
        self.socket.dataReceived(b"more" * 100)
        self.assertEqual(self.user.got, [])
        self.clock.advance(PATIENCE)
        self.assertTrue(self.transport.disconnected)

    def test_a_long_message(self) -> None:
        """Of 100 MB, announced in one frame: it ends with the first bytes above the limit."""
        self.socket.dataReceived(b"\x81\xff" + (100 << 20).to_bytes(8, "big") + bytes(4))
        for _ in range(MAX_MESSAGE // 1024 + 1):
            self.socket.dataReceived(bytes(1024))
        self.refused(TOO_BIG)

    def test_fragments(self) -> None:
        """Long together, or endless without a byte."""
        for _ in range(9):
            self.say(TextMessage("y" * 8192, message_finished=False))
        self.refused(TOO_BIG)

    def test_empty_fragments(self) -> None:
        for _ in range(MAX_FRAGMENTS + 1):
            self.say(BytesMessage(b"", message_finished=False))
        self.refused(TOO_BIG)

    def test_what_is_no_websocket(self) -> None:
        """Frames without a mask, unknown kinds, text that is not UTF-8."""
        self.socket.dataReceived(b"\x81\x01a")
        self.refused(1002)

    def test_bad_text(self) -> None:
        self.socket.dataReceived(b"\x81\x81\0\0\0\0\xff")
        self.refused(1007)

    def test_pings(self) -> None:
        """Asked every 25 s; who does not answer is gone."""
        for _ in range(3):
            self.clock.advance(PING_EVERY)
            (ping,) = self.heard()
            assert isinstance(ping, Ping)
            self.say(Pong())
        self.say(Ping(b"1"))
        self.assertEqual(self.heard(), [Pong(b"1")])
        self.clock.advance(PING_EVERY)
        self.clock.advance(PATIENCE)
        self.assertTrue(self.transport.disconnected)

    def test_ends(self) -> None:
        """By the browser, by us, by the network: nothing stays behind."""
        self.say(CloseConnection(1000))
        self.assertTrue(self.transport.disconnecting)
        self.socket.connectionLost(Failure(ConnectionError()))
        self.assertEqual(self.user.ends, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.socket.send(text_message("late"))

    def test_our_end(self) -> None:
        late = self.browser.send(TextMessage("still there"))
        self.socket.close(4401, "over")
        (end,) = self.heard()
        assert isinstance(end, CloseConnection)
        self.assertEqual((end.code, end.reason), (4401, "over"))
        self.socket.dataReceived(late + self.browser.send(end.response()))
        self.assertEqual(self.user.got, [])
        self.assertTrue(self.transport.disconnecting)

    def test_late(self) -> None:
        """Who sends can see that the browser does not take it, and hears when it does."""
        producer = self.transport.producer
        producer.pauseProducing()
        self.assertTrue(self.socket.late)
        producer.resumeProducing()
        self.assertFalse(self.socket.late)
        self.assertEqual(self.user.got, ["drained"])

    def test_nothing_is_read_of_who_is_late(self) -> None:
        """Its pings and messages wait, those that came with the same bytes, too."""
        self.say(TextMessage("late"), *[Ping(b"%d" % number) for number in range(50)])
        self.assertEqual(self.transport.producerState, "producing")
        self.user.got.clear()
        self.heard()
        self.transport.producer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.say(*[Ping(b"%d" % number) for number in range(50)], TextMessage("a"))
        self.assertEqual((self.heard(), self.user.got), ([], []))
        self.transport.producer.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(len(self.heard()), 50)
        self.assertEqual(self.user.got, ["a", "drained"])
        # Each answer makes it late: the next message waits for it.
        self.user.text = lambda message: (  # type: ignore[method-assign]
            self.user.got.append(message), self.transport.producer.pauseProducing()
        )
        self.user.got.clear()
        raw = b"".join(self.browser.send(TextMessage(one)) for one in "bcd")
        self.socket.dataReceived(raw)
        for seen in (["b"], ["b", "c"], ["b", "c", "d"]):
            self.assertEqual((self.user.got, self.transport.producerState), (seen, "paused"))
            self.transport.producer.resumeProducing()
        self.assertEqual(self.user.got, ["b", "c", "d", "drained"])
        self.assertEqual(self.transport.producerState, "producing")

    def test_pongs_that_nobody_asked_for(self) -> None:
        """They prove nothing: who takes no ping is gone."""
        for _ in range(int(PING_EVERY)):
            self.clock.advance(1)
            self.say(Pong())
        self.assertTrue(any(isinstance(one, Ping) for one in self.heard()))
