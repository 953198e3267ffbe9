"""Streams of web pages: their window, what they may ask, the console of a virtual node."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.server.streams.platform import Platform
from walt.common import frames
from walt.common.errors import Denied, Invalid, NotFound
from walt.server.domain.virtual.console import KEPT, Console
from walt.server.streams.base import FramedRequest, Peer, StreamProtocol
from walt.server.streams.inside import MAX_HELD, WINDOW, PageStream
from walt.server.streams.node_command import NodeCommands
from walt.server.streams.node_console import MAX_HELD as HELD_OUTPUT
from walt.server.streams.node_console import ConsoleRequest


class Echo(FramedRequest):
    """A request that sends what a test wants, and keeps what the page sends."""

    last: Echo

    def __init__(self, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(connection, peer)
        Echo.last = self
        self.got: list[tuple[bytes, bytes]] = []
        self.pauses: list[str] = []
        self.gone = False

    def opened(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters
        self.transport: Any = self.connection.transport
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        self.pauses.append("pause")

    def resumeProducing(self) -> None:
        self.pauses.append("resume")

    def stopProducing(self) -> None:
        self.pauses.append("stop")

    def frame(self, kind: bytes, payload: bytes) -> None:
        self.got.append((kind, payload))

    def lost(self) -> None:
        self.gone = True


class Page:
    """What a page is sent."""

    def __init__(self, table: dict[str, Any], clock: Clock) -> None:
        self.sent = bytearray()
        self.largest = 0
        self.ends = 0
        self.late = False
        self.stream = PageStream(
            table, Peer(None, True, "alice", True), clock, self.take, self.end,
            lambda: self.late,
        )

    def take(self, data: bytes) -> None:
        self.sent += data
        self.largest = max(self.largest, len(data))

    def end(self) -> None:
        self.ends += 1

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Return the frames since the last time."""
        found = list(frames.Decoder().feed(bytes(self.sent)))
        self.sent.clear()
        return found

    def acknowledge(self, count: int) -> None:
        """Say that octets were processed."""
        self.stream.received(b"A" + (4).to_bytes(4, "big") + count.to_bytes(4, "big"))


class PageStreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.page = Page({"REQ_NODE_CMD": Echo}, self.clock)

    def begin(self) -> Echo:
        """Open the request; return what serves it."""
        self.page.stream.begin("REQ_NODE_CMD", {"node": "n", "username": "bob"})
        return Echo.last

    def test_both_ways(self) -> None:
        """As on a socket; the user is that of the session, whatever a page says."""
        echo = self.begin()
        self.assertEqual((echo.username, echo.parameters), ("alice", {"node": "n"}))
        self.page.stream.received(frames.encode(frames.DATA, b"ls\n"))
        self.assertEqual(echo.got, [(b"D", b"ls\n")])
        echo.data(b"x" * 100_000)
        self.assertLessEqual(self.page.largest, 64 * 1024 - 1)
        self.assertEqual(self.page.frames(), [(b"D", b"x" * 100_000)])
        echo.result(status=3)
        self.assertEqual(self.page.frames(), [(b"R", b'{"status": 3}')])
        self.clock.advance(0)
        self.assertEqual((self.page.ends, echo.gone, echo.pauses), (1, True, ["stop"]))
        echo.data(b"late")
        self.page.stream.received(frames.encode(frames.DATA, b"late"))
        self.assertEqual(self.page.frames(), [])
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_window(self) -> None:
        """Who sends waits for a page that does not come after."""
        echo = self.begin()
        echo.data(b"x" * (WINDOW - 5))
        self.assertEqual(echo.pauses, [])
        echo.data(b"y")
        self.assertEqual(echo.pauses, ["pause"])
        self.page.acknowledge(1000)
        self.assertEqual(echo.pauses, ["pause"])
        self.page.acknowledge(WINDOW)
        self.assertEqual(echo.pauses, ["pause", "resume"])
        self.page.acknowledge(1 << 31)
        echo.data(b"x" * (WINDOW + 1))
        self.assertEqual(echo.pauses, ["pause", "resume", "pause"])

    def test_a_late_page(self) -> None:
        """What it claims to have processed while it takes nothing changes nothing."""
        echo = self.begin()
        self.page.late = True
        echo.data(b"x")
        self.assertEqual(echo.pauses, ["pause"])
        self.page.acknowledge(0xffffffff)
        self.page.stream.drained()
        self.assertEqual(echo.pauses, ["pause"])
        self.page.late = False
        self.page.stream.drained()
        self.assertEqual(echo.pauses, ["pause", "resume"])
        echo.data(b"x" * (WINDOW + 1))
        self.page.stream.drained()  # it took this, and did not process it
        self.assertEqual(echo.pauses, ["pause", "resume", "pause"])

    def test_input(self) -> None:
        """What nobody takes is kept within a limit."""
        echo = self.begin()
        echo.transport.pauseProducing()
        for _ in range(3):
            self.page.stream.received(frames.encode(frames.DATA, b"1"))
        self.assertEqual(echo.got, [])
        echo.transport.resumeProducing()
        self.assertEqual(len(echo.got), 3)
        echo.transport.pauseProducing()
        for _ in range(MAX_HELD // 1000 + 1):
            self.page.stream.received(frames.encode(frames.DATA, b"1" * 1000))
        self.clock.advance(0)
        self.assertEqual((self.page.ends, echo.gone), (1, True))

    def test_ends(self) -> None:
        """A page that is gone ends what it opened; what is no frame, too."""
        echo = self.begin()
        self.page.stream.end()
        self.page.stream.end()
        self.assertEqual((echo.gone, self.page.ends), (True, 0))
        page = Page({"REQ_NODE_CMD": Echo}, self.clock)
        page.stream.begin("REQ_NODE_CMD", {})
        page.stream.received(b"?" * 100)
        self.clock.advance(0)
        self.assertEqual((Echo.last.gone, page.ends), (True, 1))

    def test_refused(self) -> None:
        """Uploads, tunnels and what nodes ask are not for pages."""
        for request in ("REQ_TAR_TO_NODE", "REQ_TCP_TO_NODE", "REQ_WEB", "REQ_NEW_INCOMING_LOGS",
                        "0", "REQ_NODE_CMD\nREQ_WEB", ""):
            with self.assertRaises(Denied):
                self.page.stream.begin(request, {})


class Consoles:
    """The consoles of virtual nodes; what is typed there is kept."""

    def __init__(self) -> None:
        self.there = Console(Clock(), lambda data: None)
        self.typed = b""
        self.removed = False

    def console(self, name: str) -> Console:
        if name == "switch-1":
            raise Invalid("no virtual node")
        return self.there

    def console_input(self, name: str, data: bytes) -> None:
        if self.removed:
            raise NotFound("there is no such node")
        self.typed += data


class ConsoleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.consoles, platform = Clock(), Consoles(), Platform()
        owner = NodeCommands(
            platform.registry, platform.sessions, platform.platform, platform.open_sessions
        )
        self.page = Page({"REQ_NODE_CONSOLE": lambda connection, peer: ConsoleRequest(
            self.consoles, owner, connection, peer,  # type: ignore[arg-type]
        )}, self.clock)

    def open(self, node: object = "node-1") -> None:
        """Open a console."""
        self.page.stream.begin("REQ_NODE_CONSOLE", {"node": node})

    def test_past_and_present(self) -> None:
        """64 KiB of what was; then what is; what one types."""
        self.consoles.there.received(b"a" * 100 + b"b" * KEPT)
        self.open()
        self.consoles.there.received(b"now")
        self.assertEqual(self.page.frames(), [(b"D", b"b" * KEPT), (b"D", b"now")])
        self.page.stream.received(frames.encode(frames.DATA, b"root\n"))
        self.page.stream.received(frames.encode(frames.WINDOW, b"{}"))
        self.assertEqual(self.consoles.typed, b"root\n")
        self.page.stream.end()
        self.consoles.there.received(b"later")
        self.assertEqual(self.page.frames(), [])

    def test_a_late_reader(self) -> None:
        """The machine waits for nobody; what is left out is told."""
        self.open()
        self.consoles.there.received(b"x" * (WINDOW + 1))
        self.page.frames()
        for _ in range(10):
            self.consoles.there.received(b"y" * (HELD_OUTPUT // 8))
        self.assertEqual(self.page.frames(), [])
        self.page.acknowledge(WINDOW + 100)
        (kind, text), (data, payload) = self.page.frames()
        self.assertEqual((kind, data, len(payload)), (b"M", b"D", HELD_OUTPUT))
        self.assertIn(f"{HELD_OUTPUT // 4} bytes of output were left out", text.decode())

    def test_refused(self) -> None:
        """What is no virtual node; one that is removed while its console is open."""
        for node in (7, "ghost", "switch-1"):
            page = self.page
            self.setUp()
            self.open(node)
            self.clock.advance(0)
            self.assertEqual(self.page.ends, 1, node)
            self.assertIn(b'"error"', bytes(self.page.sent))
            self.assertIsNot(page, self.page)
        self.setUp()
        self.open()
        self.consoles.removed = True
        self.page.stream.received(frames.encode(frames.DATA, b"x"))
        self.assertIn(b"there is no such node", bytes(self.page.sent))
        self.clock.advance(0)
        self.assertEqual(self.page.ends, 1)
