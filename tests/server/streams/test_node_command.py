"""REQ_NODE_CMD: parameters, frames, window, ends."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.server.streams.platform import CLIENT, FROM_NODE, NODE, Connection, Platform
from walt.common import frames
from walt.server.domain.devices.model import Device
from walt.server.domain.nodes.sessions import Terminal

TERMINAL = {"term": "xterm-256color", "rows": 24, "columns": 80}


class NodeCommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()

    def open(self, **parameters: Any) -> Connection:
        line = json.dumps({"node": "node-1", "command": "ls", **parameters}).encode()
        return self.platform.connect(CLIENT, b"REQ_NODE_CMD\n" + line + b"\n")

    @property
    def session(self) -> Any:
        return self.platform.sessions.made[-1]

    def test_parameters(self) -> None:
        """Address of the node, command, terminals."""
        self.open(command="ls -l")
        self.assertEqual((self.session.ip, self.session.command), (NODE.ip, "ls -l"))
        self.assertIsNone(self.session.options["terminal"])
        self.assertFalse(self.session.options["node_terminal"])
        self.open(terminal=TERMINAL, node_terminal=True)
        self.assertEqual(self.session.options["terminal"], Terminal("xterm-256color", 24, 80))
        self.assertTrue(self.session.options["node_terminal"])

    def test_the_log_says_who_worked_on_a_node_of_another(self) -> None:
        """Commands and shells on nodes of others; not on one's own."""
        self.open()
        other = Device(
            "52:54:00:00:00:05", "bobs", "node", ip="192.168.1.5", image="bob/img:latest"
        )
        self.successResultOf(Deferred.fromCoroutine(self.platform.registry.put(other)))
        self.open(node="bobs")
        self.open(node="bobs", command="")
        self.successResultOf(Deferred.fromCoroutine(self.platform.logs.flush()))
        self.assertEqual([one.line for one in self.platform.store.lines], [
            "node bobs of bob: command run by alice", "node bobs of bob: shell opened by alice",
        ])

    def test_refused(self) -> None:
        """Wrong parameters never start anything."""
        for parameters in (
            {"node": "ghost"}, {"node": 3}, {"node": "switch-1"}, {"node": "walt-server"},
            {"command": 3}, {"command": "a\0b"}, {"command": "x" * 60_001},
            {"terminal": "xterm"}, {"terminal": {}}, {"terminal": {**TERMINAL, "rows": 0}},
            {"terminal": {**TERMINAL, "columns": "80"}},
            {"terminal": {**TERMINAL, "rows": 10_000}},
            {"terminal": {**TERMINAL, "rows": True}},
            {"terminal": {**TERMINAL, "term": "-x"}},
            {"terminal": {**TERMINAL, "term": "x;reboot"}},
            {"terminal": {**TERMINAL, "term": None}},
        ):
            connection = self.open(**parameters)
            [(kind, payload)] = connection.frames()
            self.assertEqual(kind, frames.RESULT)
            self.assertIn(json.loads(payload)["code"], ("INVALID", "NOT_FOUND"), parameters)
            self.assertTrue(connection.closed)
        self.assertEqual(self.platform.sessions.made, [])

    def test_input(self) -> None:
        """Data, window changes and the end of input reach the program, in order."""
        connection = self.open(terminal=TERMINAL)
        connection.send(
            frames.encode(frames.DATA, b"key")
            + frames.encode(frames.WINDOW, b'{"rows": 50, "columns": 132}')
            + frames.encode(frames.END)
        )
        self.assertEqual(self.session.events, [b"key", (50, 132), "end"])

    def test_input_with_the_parameters(self) -> None:
        """Frames in the segment of the parameters are not lost."""
        self.platform.connect(
            CLIENT, b'REQ_NODE_CMD\n{"node": "node-1"}\n' + frames.encode(frames.DATA, b"in")
        )
        self.assertEqual(self.session.events, [b"in"])

    def test_bad_windows(self) -> None:
        """A window that makes no sense ends the connection."""
        for payload in (b"", b"[]", b'{"rows": -1, "columns": 3}', b'{"rows": 1}', b"\xff", b"3"):
            connection = self.open(terminal=TERMINAL)
            connection.frame(frames.WINDOW, payload)
            self.assertTrue(connection.transport.aborted, payload)

    def test_output_and_status(self) -> None:
        """Output and errors keep apart; the exit status comes last, then the end."""
        connection = self.open()
        self.session.options["output"](b"out")
        self.session.options["errors"](b"err")
        self.session.options["ended"](3)
        self.assertEqual(connection.frames(), [
            (frames.DATA, b"out"), (frames.MESSAGE, b"err"), (frames.RESULT, b'{"status": 3}'),
        ])
        self.assertTrue(connection.transport.disconnecting)
        self.assertIsNone(connection.transport.producer)

    def test_client_loss_kills(self) -> None:
        """A client that leaves ends its program; a program that ended is not ended twice."""
        connection = self.open()
        connection.leave()
        self.assertEqual(self.session.events, ["close"])
        connection = self.open()
        self.session.options["ended"](0)
        connection.leave()
        self.assertEqual(self.session.events, [])

    def test_slow_client(self) -> None:
        """A client that does not read stops the program's output."""
        connection = self.open()
        connection.transport.producer.pauseProducing()
        connection.transport.producer.resumeProducing()
        self.assertEqual(self.session.events, ["pause", "resume"])

    def test_frames_after_the_end(self) -> None:
        """Keys typed after the program ended are dropped."""
        connection = self.open()
        self.session.options["ended"](0)
        connection.frame(frames.DATA, b"late")
        self.assertEqual(self.session.events, [])


class PingTests(SynchronousTestCase):
    def test_ping(self) -> None:
        """Any device with an address; its output, then its status."""
        platform = Platform()
        connection = platform.connect(CLIENT, b'REQ_DEVICE_PING\n{"device": "switch-1"}\n')
        [program] = platform.sessions.made
        self.assertEqual(program.ip, "192.168.1.3")
        program.options["output"](b"64 bytes")
        program.options["ended"](0)
        self.assertEqual(connection.frames(), [
            (frames.DATA, b"64 bytes"), (frames.RESULT, b'{"status": 0}'),
        ])

    def test_refused(self) -> None:
        """Unknown devices and other values; peers that are not clients."""
        platform = Platform()
        for line, peer in (
            (b'{"device": "ghost"}', CLIENT), (b'{"device": 3}', CLIENT), (b"{}", CLIENT),
            (b'{"device": "switch-1"}', FROM_NODE),
        ):
            connection = platform.connect(peer, b"REQ_DEVICE_PING\n" + line + b"\n")
            self.assertEqual([kind for kind, _ in connection.frames()], [frames.RESULT])
            self.assertTrue(connection.closed)
        self.assertEqual(platform.sessions.made, [])
