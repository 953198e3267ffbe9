"""REQ_DUMP_LOGS: stored lines, then live ones, without loss or doubles (S-174)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.fakes.transports import serve
from tests.server.streams.platform import CLIENT, EPOCH, NODE, SERVER, Connection, Platform
from walt.common import frames
from walt.common.errors import Unavailable
from walt.common.records import Blocks, decode


def request(**parameters: Any) -> bytes:
    return b"REQ_DUMP_LOGS\n" + json.dumps(parameters).encode() + b"\n"


class Reader:
    """Gathers the lines of a dump."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lines: list[str] = []
        self.records: list[list[Any]] = []
        self.result: dict[str, Any] | None = None
        self.messages = b""
        self._arriving = Blocks()

    def read(self) -> list[str]:
        """Return the texts of the lines received so far."""
        for kind, payload in self.connection.frames():
            if kind == frames.DATA:
                for data in self._arriving.feed(payload):
                    self.records += [list(one) for one in decode(data).records()]
            elif kind == frames.RESULT:
                self.result = json.loads(payload)
            else:
                self.messages += payload
        return [record[3] for record in self.records]


class DumpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()

    def write(self, *lines: str, stream: str = "exp") -> None:
        for line in lines:
            self.platform.logs.write(NODE.mac, stream, line)

    def store(self, *lines: str) -> None:
        self.write(*lines)
        self.successResultOf(Deferred.fromCoroutine(self.platform.logs.flush()))

    def open(self, **parameters: Any) -> Reader:
        return Reader(self.platform.connect(CLIENT, request(**parameters)))

    def test_history(self) -> None:
        """Stored lines by time, with the present names of issuers; then the end."""
        self.store("one", "two")
        reader = self.open(history=True, issuers="my-nodes")
        self.assertEqual(reader.read(), ["one", "two"])
        self.assertEqual(reader.records[0], [EPOCH, "node-1", "exp", "one"])
        self.assertEqual(reader.result, {"status": 0})
        self.assertTrue(reader.connection.closed)
        self.assertTrue(self.platform.store.cursors[0].closed)

    def test_lines_not_stored_yet(self) -> None:
        """A line accepted a moment before is part of the history."""
        self.write("fresh")
        self.assertEqual(self.open(history=True).read(), ["fresh"])

    def test_filters(self) -> None:
        """Issuers, streams, lines and bounds apply to stored and to live lines."""
        self.store("apple", "pear")
        self.platform.logs.write(SERVER.mac, "platform.nodes", "apple")
        reader = self.open(history=True, realtime=True, issuers="node-1", lines="^a")
        self.assertEqual(reader.read(), ["apple"])
        self.write("avocado", "banana")
        self.platform.logs.write(SERVER.mac, "exp", "apricot")
        self.assertEqual(reader.read(), ["apple", "avocado"])

    def test_realtime_only(self) -> None:
        """Nothing of the past; each line at once, until the client leaves."""
        self.store("old")
        reader = self.open(realtime=True)
        self.assertEqual(reader.read(), [])
        self.write("new")
        self.assertEqual(reader.read(), ["new"])
        reader.connection.leave()
        self.write("later")
        self.assertEqual(reader.read(), ["new"])

    def test_junction(self) -> None:
        """Lines written at any moment around the junction appear once, in order."""
        self.platform.store.block = 2
        self.store("1", "2", "3")
        self.write("4")  # accepted, not stored
        gate: Deferred[None] = Deferred()
        self.platform.store.reading = gate
        reader = self.open(history=True, realtime=True)
        self.write("5", "6")  # while the history is read
        self.assertEqual(reader.read(), [])
        self.platform.store.reading = None
        gate.callback(None)
        self.assertEqual(reader.read(), ["1", "2", "3", "4", "5", "6"])
        self.write("7")
        self.assertEqual(reader.read(), ["1", "2", "3", "4", "5", "6", "7"])
        self.platform.clock.advance(5)
        self.assertEqual(len(reader.read()), 7)

    def test_leaving_during_history(self) -> None:
        """The cursor is closed; nothing is sent nor logged as a bug."""
        self.store("1")
        self.platform.store.reading = Deferred()
        reader = self.open(history=True, realtime=True)
        reader.connection.leave()
        self.assertTrue(self.platform.store.cursors[0].closed)
        self.write("2")
        self.assertEqual(reader.read(), [])

    def test_bad_queries(self) -> None:
        """Issuers outside the allowed set, bad expressions, bad bounds: an error, closed."""
        for parameters in (
            {"issuers": "switch-1"}, {"issuers": "ghost"}, {"lines": "("}, {"streams": "["},
            {"start": "yesterday"}, {"lines": 3}, {"issuers": ["node-1"]}, {"start": 1e300},
        ):
            reader = self.open(history=True, **parameters)
            self.assertEqual(reader.read(), [])
            assert reader.result is not None
            expression = parameters.keys() & {"lines", "streams"} and parameters != {"lines": 3}
            self.assertEqual(reader.result["status"], 2 if expression else 1, parameters)
            self.assertIn(
                reader.result["code"],
                ("WRONG_EXPRESSION",) if expression else ("INVALID", "NOT_FOUND"),
            )
            self.assertTrue(reader.connection.closed)

    def test_database_down(self) -> None:
        """A declared error reaches the client; another one without its text."""
        for error, code in ((Unavailable("no database"), "UNAVAILABLE"),
                            (RuntimeError("a secret"), "INTERNAL")):
            self.platform.store.refusal = error
            reader = self.open(history=True, realtime=True)
            reader.read()
            assert reader.result is not None
            self.assertEqual(reader.result["code"], code)
            self.assertNotIn("secret", reader.result["error"])
            self.assertTrue(reader.connection.closed)
            self.assertIsNone(reader.connection.transport.producer)
            self.write("after")
            self.assertEqual(reader.read(), [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_history_waits_for_the_reader(self) -> None:
        """No block is read ahead of a reader that is late."""
        self.platform.store.block = 10
        self.store(*(str(number) for number in range(30)))
        gate: Deferred[None] = Deferred()
        self.platform.store.reading = gate
        reader = self.open(history=True)
        producer = reader.connection.transport.producer
        producer.pauseProducing()
        gate.callback(None)
        self.assertEqual(len(reader.read()), 10)
        producer.resumeProducing()
        self.assertEqual(len(reader.read()), 30)

    def test_late_reader_catches_up(self) -> None:
        """Live lines wait for a reader that is a little late."""
        reader = self.open(realtime=True)
        producer = reader.connection.transport.producer
        producer.pauseProducing()
        self.write("1", "2")
        self.assertEqual(reader.read(), [])
        producer.resumeProducing()
        self.write("3")
        self.assertEqual(reader.read(), ["1", "2", "3"])

    def test_reader_too_slow(self) -> None:
        """Above a bound of memory, the reader is told and dropped."""
        self.platform.dumps.most_held = 10_000
        reader = self.open(realtime=True)
        reader.connection.transport.producer.pauseProducing()
        for _ in range(100):
            self.write("x" * 100)
        self.assertEqual(reader.read(), [])
        self.assertIn(b"too slow", reader.messages)
        self.assertEqual((reader.result or {})["code"], "LIMIT_EXCEEDED")
        self.assertTrue(reader.connection.closed)


class SlowReaderTests(TestCase):
    """With a real socket: the kernel's buffers, the transport's, then the bound."""

    def setUp(self) -> None:
        self.platform = Platform()
        directory = tempfile.mkdtemp(prefix="wt", dir="/tmp")
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "s")
        port = reactor.listenUNIX(  # type: ignore[attr-defined]
            self.path, serve(lambda: self.platform.protocol(CLIENT))
        )
        self.addCleanup(port.stopListening)

    async def test_dropped_and_closed(self) -> None:
        """A reader that does not read is closed by the server; its result is in the stream."""
        reader = socket.socket(socket.AF_UNIX)
        self.addCleanup(reader.close)
        reader.connect(self.path)
        reader.sendall(request(realtime=True))
        while not self.platform.logs._subscribers:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        while self.platform.logs._subscribers:
            for _ in range(50):
                self.platform.logs.write(NODE.mac, "exp", "x" * 5000)
            await deferLater(reactor, 0)  # type: ignore[arg-type]
        reader.setblocking(False)
        received = b""
        while True:
            await deferLater(reactor, 0)  # type: ignore[arg-type]
            try:
                data = reader.recv(1 << 20)
            except BlockingIOError:
                continue
            if not data:
                break
            received += data
        kinds = [kind for kind, _ in frames.Decoder().feed(received)]
        self.assertEqual(kinds[-2:], [frames.MESSAGE, frames.RESULT])
        self.assertLess(len(received), 8 << 20)
