"""The legacy line protocol, byte by byte (spec node-protocols §6.6, §7)."""

from __future__ import annotations

import os
import pickle
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.transports import TcpTransport
from walt.common.errors import NotFound
from walt.server.domain.nodes.clock import next_whole_second
from walt.server.wire.legacy import LegacyProtocol


class Peer:
    """An old node, or an old virtual host."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1700000000.25)
        self.calls: list[tuple[Any, ...]] = []
        self.cancelled = 0
        apis = {
            "NSAPI": {"sync_clock": self.sync_clock, "forever": self.forever},
            "VSAPI": {
                "register_device": self.register_device, "get_device_info": self.get_device_info,
                "bug": self.bug,
            },
        }
        self.protocol = LegacyProtocol(apis, "11.0")
        self.transport = TcpTransport()
        self.protocol.makeConnection(self.transport)

    async def sync_clock(self) -> int:
        return await next_whole_second(self.clock, self.clock.seconds)

    async def forever(self) -> None:
        def cancelled(_: Any) -> None:
            self.cancelled += 1

        await Deferred(cancelled)

    async def register_device(
        self, vci: Any, uci: Any, ip: Any, mac: Any, name: Any = None
    ) -> None:
        self.calls.append((vci, uci, ip, mac, name))

    async def get_device_info(self, mac: Any) -> dict[str, Any] | None:
        if mac == "?":
            raise NotFound("no such device")
        return {"ip": "192.168.1.2", "mac": mac}

    async def bug(self) -> None:
        raise RuntimeError("a bug")

    def says(self, data: bytes) -> bytes:
        """Send bytes; return what came back."""
        self.protocol.dataReceived(data)
        received = self.transport.value()
        self.transport.clear()
        return received


class NodeTests(SynchronousTestCase):
    def test_sync_clock(self) -> None:
        """All lines at once, as the shell script of images sends them; answer at the second."""
        peer = Peer()
        self.assertEqual(
            peer.says(b"REQ_API_SESSION\nNSAPI\n('API_CALL', 'sync_clock', (), {})\n"), b"10.0\n"
        )
        peer.clock.advance(0.7)
        self.assertEqual(peer.says(b""), b"")
        peer.clock.advance(0.1)
        self.assertEqual(peer.says(b""), b"('RESULT', 1700000001)\n")
        peer.says(b"('CLOSE')\n")
        self.assertTrue(peer.transport.disconnecting)

    def test_numeric_request_and_single_bytes(self) -> None:
        """The request by its number, in segments of one byte."""
        peer = Peer()
        received = b"".join(peer.says(bytes([byte])) for byte in b"10\nNSAPI\n")
        self.assertEqual(received, b"10.0\n")

    def test_calls_wait_for_each_other(self) -> None:
        """A second call is answered after the first."""
        peer = Peer()
        peer.says(b"10\nNSAPI\n" + b"('API_CALL', 'sync_clock', (), {})\n" * 2)
        peer.clock.advance(0.8)
        self.assertEqual(peer.says(b""), b"('RESULT', 1700000001)\n")
        peer.clock.advance(1.0)
        self.assertEqual(peer.says(b""), b"('RESULT', 1700000002)\n")

    def test_leaving_cancels(self) -> None:
        """A node that leaves does not go on occupying the server."""
        peer = Peer()
        peer.says(b"10\nNSAPI\n('API_CALL', 'forever', (), {})\n")
        peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(peer.cancelled, 1)


class VirtualHostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.peer = Peer()
        self.assertEqual(self.peer.says(b"10\nVSAPI\n"), b"10.0\n")

    def test_walt_rpc_spacing(self) -> None:
        """`walt-rpc` writes `( 'a', 'b',)`."""
        line = b"('API_CALL', 'register_device', ( 'v', 'u', '1.2.3.4', 'aa', 'n',), {})\n"
        self.assertEqual(self.peer.says(line), b"('RESULT', None)\n")
        self.assertEqual(self.peer.calls, [("v", "u", "1.2.3.4", "aa", "n")])

    def test_keyword_arguments(self) -> None:
        """Arguments by name."""
        received = self.peer.says(b"('API_CALL', 'get_device_info', (), {'mac': 'm'})\n")
        self.assertEqual(received, b"('RESULT', {'ip': '192.168.1.2', 'mac': 'm'})\n")

    def test_errors(self) -> None:
        """An EXCEPTION with the text, on one line; the session goes on."""
        received = self.peer.says(b"('API_CALL', 'get_device_info', ('?',), {})\n")
        self.assertEqual(received, b"('EXCEPTION', 'no such device')\n")
        for call in (
            b"('API_CALL', 'no_such', (), {})", b"('API_CALL', 'get_device_info', (), {})",
            b"('API_CALL', 'get_device_info', 1, {})", b"('API_CALL', 'sync_clock', (), {})",
            b"('API_CALL', '__init__', (), {})", b"('API_CALL', 3, (), {})",
            b"('API_CALL', 'get_device_info', (), {1: 2})",
        ):
            received = self.peer.says(call + b"\n")
            self.assertTrue(received.startswith(b"('EXCEPTION', "), call)
            self.assertEqual(received.count(b"\n"), 1)
        self.assertFalse(self.peer.transport.disconnecting)

    def test_bug_is_logged_not_told(self) -> None:
        """An undeclared error is in the log; the peer gets a plain sentence."""
        received = self.peer.says(b"('API_CALL', 'bug', (), {})\n")
        self.assertEqual(received, b"('EXCEPTION', 'internal error; see the log of the server')\n")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_other_messages_close(self) -> None:
        """CLOSE, another message, or no literal at all end the session."""
        for line in (b"'CLOSE'", b"('CLOSE',)", b"('SET_MODE', 'eval')", b"1", b"import os", b"("):
            peer = Peer()
            peer.says(b"10\nVSAPI\n" + line + b"\n('API_CALL', 'bug', (), {})\n")
            self.assertTrue(peer.transport.disconnecting, line)
            self.assertEqual(self.flushLoggedErrors(), [])


class OpeningTests(SynchronousTestCase):
    def test_client_of_the_original(self) -> None:
        """A CSAPI session gets our version and is closed: the client must be upgraded."""
        peer = Peer()
        self.assertEqual(peer.says(b"10\nCSAPI\n"), b"11.0\n")
        self.assertTrue(peer.transport.disconnecting)

    def test_unknown_request_or_api(self) -> None:
        """Closed without a word."""
        for data in (b"11\n", b"GET / HTTP/1.0\n", b"10\nSSAPI\n", b"10\nXYZ\n", b"10\n\xff\n"):
            peer = Peer()
            self.assertEqual(peer.says(data), b"")
            self.assertTrue(peer.transport.disconnecting, data)

    def test_huge_line(self) -> None:
        """A line without end is cut off."""
        peer = Peer()
        peer.says(b"10\nNSAPI\n")
        peer.says(b"x" * 20_000)
        self.assertTrue(peer.transport.aborted)

    def test_flood_of_calls(self) -> None:
        """Calls sent without waiting for answers are bounded."""
        peer = Peer()
        peer.says(b"10\nNSAPI\n('API_CALL', 'forever', (), {})\n")
        for _ in range(10):
            peer.says(b"('API_CALL', 'sync_clock', (), {})\n" * 100)
        self.assertTrue(peer.transport.aborted)


class Evil:
    """Would run a command when unpickled by a careless server."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self._path,)


class PickleTests(SynchronousTestCase):
    """Mode pickle4, which packages of version 10.0 insist on."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.says(b"10\nVSAPI\n")

    def call(self, *message: Any) -> Any:
        data = self.peer.says(pickle.dumps(message, 4))
        return pickle.loads(data) if data else None

    def test_device_info(self) -> None:
        """The example of the specification: mode and call in one segment."""
        call = pickle.dumps(("API_CALL", "get_device_info", ("m",), {}), 4)
        received = self.peer.says(b"('SET_MODE', 'pickle4')\n" + call)
        self.assertEqual(
            pickle.loads(received), ("RESULT", {"ip": "192.168.1.2", "mac": "m"})
        )

    def test_segments_and_newlines(self) -> None:
        """Pickles in single bytes, holding newline bytes, one after the other."""
        self.peer.says(b"('SET_MODE', 'pickle4')\n")
        call = pickle.dumps(("API_CALL", "get_device_info", ("a\nb.",), {}), 4)
        received = [answer for byte in call * 2 if (answer := self.peer.says(bytes([byte])))]
        self.assertEqual(
            [pickle.loads(one) for one in received],
            [("RESULT", {"ip": "192.168.1.2", "mac": "a\nb."})] * 2,
        )

    def test_errors_and_way_back(self) -> None:
        """An error is an exception to raise; the mode may change back."""
        self.peer.says(b"('SET_MODE', 'pickle4')\n")
        kind, error = self.call("API_CALL", "get_device_info", ("?",), {})
        self.assertEqual((kind, str(error)), ("RESULT", "no such device"))
        self.assertIsNone(self.call("SET_MODE", "line-repr-eval"))
        received = self.peer.says(b"('API_CALL', 'get_device_info', ('?',), {})\n")
        self.assertEqual(received, b"('EXCEPTION', 'no such device')\n")

    def test_hostile(self) -> None:
        """Globals, code, endless values and garbage: closed, nothing run."""
        marker = self.mktemp()
        nested: Any = []
        for _ in range(60):
            nested = [nested, nested]
        for data in (
            pickle.dumps(Evil(marker), 4), pickle.dumps(("API_CALL", Evil(marker), (), {}), 4),
            b"cos\nsystem\n(S'mkdir x'\ntR.", b"\x80\x04.", b"garbage", b"\x80\x04" + b"]" * 30_000,
            b"\x80\x04\x8e" + b"\xff" * 8 + b".", pickle.dumps(("CLOSE",), 4),
            pickle.dumps(nested, 4),
        ):
            peer = Peer()
            peer.says(b"10\nVSAPI\n('SET_MODE', 'pickle4')\n")
            for at in range(0, len(data), 4000):
                peer.says(data[at:at + 4000])
            closed = peer.transport.disconnecting or peer.transport.aborted
            # What may be a beginning waits for its end, within the bound.
            # The announced size of a string that never comes waits within the bound.
            self.assertEqual(closed, not data.startswith(b"\x80\x04\x8e"), data[:20])
        self.assertFalse(os.path.exists(marker))
        self.peer.says(b"('SET_MODE', 'pickle4')\n")
        self.assertIsNone(self.call("API_CALL", "register_device", (nested,), {}))
        self.assertTrue(self.peer.transport.disconnecting)
