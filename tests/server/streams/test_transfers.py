"""REQ_TAR_FROM_NODE, REQ_TAR_TO_NODE, REQ_TCP_TO_NODE, REQ_DEVICE_SHELL: parameters."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.server.streams.platform import CLIENT, FROM_NODE, NODE, Connection, Platform
from walt.common import frames
from walt.common.transfers import Place
from walt.server.domain.devices.model import Device
from walt.server.domain.transfers import receive_script, send_script

FROM = {"node": "node-1", "path": "/etc", "kind": "d", "merge": False}
TO = {"node": "node-1", "directory": "/etc", "name": "x", "kind": "f"}



class ParametersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()

    def open(self, request: str, parameters: dict[str, Any], peer: Any = CLIENT) -> Connection:
        line = json.dumps(parameters).encode()
        return self.platform.connect(peer, request.encode() + b"\n" + line + b"\n")

    def test_scripts(self) -> None:
        """The node runs the script of the rules."""
        for request, parameters, script in (
            ("8", FROM, send_script("/etc", "d", merge=False)),
            ("REQ_TAR_FROM_NODE", {**FROM, "merge": True}, send_script("/etc", "d", merge=True)),
            ("9", TO, receive_script(Place("/etc", "x"), "f")),
            ("9", {**TO, "name": None, "kind": "d"}, receive_script(Place("/etc", None), "d")),
        ):
            self.open(request, parameters)
            made = self.platform.sessions.made[-1]
            self.assertEqual((made.ip, made.command), (NODE.ip, script))

    def test_relay(self) -> None:
        """Nothing but devices of walt-net is reached: neither the server nor its loopback."""
        for number, ip in enumerate(("127.0.0.1", "10.0.0.1")):
            device = Device(f"52:54:00:00:09:0{number}", f"far-{number}", "unknown", ip=ip)
            self.successResultOf(Deferred.fromCoroutine(self.platform.registry.put(device)))
        for name in ("walt-server", "far-0", "far-1"):
            [(_, payload)] = self.open("11", {"device": name, "port": 22}).frames()
            self.assertEqual(json.loads(payload)["code"], "INVALID", name)

    def test_refused(self) -> None:
        """Wrong values, and peers that are not clients, start nothing."""
        for request, good, wrong in (
            ("8", FROM, {"node": "ghost"}), ("8", FROM, {"node": "switch-1"}),
            ("8", FROM, {"path": "etc"}), ("8", FROM, {"path": "/a\0"}), ("8", FROM, {"path": 3}),
            ("8", FROM, {"path": "/" * 5000}), ("8", FROM, {"kind": "o"}),
            ("9", TO, {"name": "a/b"}), ("9", TO, {"name": ".."}), ("9", TO, {"name": ""}),
            ("9", TO, {"name": "a\0"}), ("9", TO, {"name": 3}), ("9", TO, {"directory": "x"}),
            ("9", TO, {"kind": None}), ("9", TO, {"node": ["node-1"]}),
            ("11", {"device": "node-1", "port": 80}, {"port": 0}),
            ("11", {"device": "node-1", "port": 80}, {"port": "80"}),
            ("11", {"device": "node-1", "port": 80}, {"port": True}),
            # Nodes obey the server there, whoever asked it for a connection.
            ("11", {"device": "node-1", "port": 80}, {"port": 12346}),
            ("11", {"device": "node-1", "port": 80}, {"device": "ghost"}),
            ("11", {"device": "node-1", "port": 80}, {"device": 3}),
            ("15", {"device": "switch-1", "user": "root"}, {"user": "-x"}),
            ("15", {"device": "switch-1", "user": "root"}, {"user": None}),
            ("15", {"device": "switch-1", "user": "root"}, {"device": "ghost"}),
        ):
            connection = self.open(request, {**good, **wrong})
            [(kind, payload)] = connection.frames()
            self.assertEqual(kind, frames.RESULT)
            self.assertIn(json.loads(payload)["code"], ("INVALID", "NOT_FOUND"), wrong)
        for request, good in (("8", FROM), ("9", TO), ("11", {}), ("15", {})):
            self.assertTrue(self.open(request, good, FROM_NODE).closed)
        self.assertEqual(self.platform.sessions.made, [])
