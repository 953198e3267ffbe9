"""Scripts and commands whose server answers what no server of this release would."""

from __future__ import annotations

import json
import struct
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

import walt
from tests.client.platform import Server, Walt
from tests.client.test_api import Script
from tests.patience import patient
from walt.client.answers import NUMBER, Answer
from walt.client.errors import Failure
from walt.common import ampbox, frames

reactor: Any = any_reactor
NODE = {
    "mac": "02:00:00:00:00:01", "name": "one", "ip": None, "type": "node", "in_walt_net": True,
    "virtual": True, "image": "alice/img:latest", "model": "pc", "booted": True, "netmask": "",
    "gateway": "", "netsetup": 0,
}


class AnswerTests(SynchronousTestCase):
    def test_looks(self) -> None:
        """Types, lists, fields; a truth is no number."""
        good = Answer({b"v": json.dumps([{"a": 1, "b": [0.5, "x"]}]).encode()})
        self.assertEqual(good.json("v", [{"a": int, "b": [(*NUMBER, str)]}])[0]["a"], 1)
        for value, look in (
            ({}, [object]), ([1], [{}]), ([{}], [{"a": int}]), ([True], [int]), ("x", int),
            ([{"a": None}], [{"a": (int, str)}]),
        ):
            answer = Answer({b"v": json.dumps(value).encode()})
            self.assertRaises(Failure, answer.json, "v", look)
        for data in (b"", b"{", b"\xff", b"[" * 100_000):
            self.assertRaises(Failure, Answer({b"v": data}).json, "v")
        self.assertRaises(Failure, lambda: Answer()[b"v"])


def block(
    sources: bytes = b'[["a", "b"]]', *, count: int = 1, moment: int = 0, which: int = 0,
    size: int = 1, text: bytes = b"x",
) -> bytes:
    """Return a block of log lines, right or wrong."""
    body = struct.pack(">II", count, len(sources)) + sources + struct.pack(
        ">qii", moment, which, size
    ) + text
    return struct.pack(">I", len(body)) + body


WRONG_BLOCK = struct.pack(">I", 2) + b"[]"


class _Wrong(Protocol):
    """Says hello as a server does, then answers every call, and every stream, with these."""

    def __init__(self, answer: dict[bytes, bytes], stream: bytes) -> None:
        self._answer, self._stream = answer, stream
        self._boxes = ampbox.Decoder()
        self._is_stream: bool | None = None

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        if self._is_stream is None:
            self._is_stream = data[:1] != b"\0"
            if self._is_stream:
                self.transport.write(self._stream)
        if self._is_stream:
            return
        for box in self._boxes.feed(data):
            answer = dict(self._answer)
            if box[b"_command"] == b"hello":
                answer = {b"version": walt.__version__.encode(), b"protocol": b"1",
                          b"username": b"alice"}
            self.transport.write(ampbox.encode({b"_answer": box[b"_ask"], **answer}))


class WrongServer(Server):
    """A server in whose place such answers come."""

    def __init__(self, case: TestCase) -> None:
        self.answer: dict[bytes, bytes] = {}
        self.stream = b""
        super().__init__(case)

    def _listen(self, case: TestCase, name: str, factory: Any) -> None:
        wrong = Factory.forProtocol(lambda: _Wrong(self.answer, self.stream))
        super()._listen(case, name, wrong)


class WrongServerTests(TestCase):
    timeout = patient(60)

    async def failure(self, text: str, server: WrongServer) -> str:
        """Run a script that must end with one clear failure; return what it says."""
        script = Script(server, (
            f"try:\n    {text}\nexcept Exception as error:\n"
            "    print(type(error).__name__, error)\n"
        ))
        status = await script.ended
        self.assertEqual((status, script.err), (0, b""), text)
        return script.out.decode()

    async def test_calls(self) -> None:
        """Missing fields, wrong types, no JSON, too much of it: each is a Failure that says so."""
        server = WrongServer(self)
        lists: dict[str, Any] = {"nodes": [NODE]}
        for answer, text, told in (
            ({}, "api.nodes.get_nodes()", "it lacks nodes"),
            ({"nodes": 1}, "api.nodes.get_nodes()", "nodes is no list"),
            ({"nodes": [1]}, "api.nodes.get_nodes()", "is no object"),
            ({"nodes": [{}]}, "api.nodes.get_nodes()", "mac is missing"),
            ({"nodes": [{**NODE, "booted": "yes"}]}, "api.nodes.get_nodes()", "booted is of type"),
            ({**lists, "groups": [{}]}, "api.nodes.get_nodes().one.config.x", "settings is miss"),
            ({"tables": {"own": [{}]}}, "api.images.get_images()", "name is missing"),
            ({"tables": {"known": []}}, "api.tools.get_server()", "no server among"),
            ({"tables": []}, "api.tools.get_server()", "tables is no object"),
            (lists, "api.nodes.get_nodes().boots()", "it lacks names"),
            ({**lists, "names": ["one"], "boots": [{}]}, "api.nodes.get_nodes().boots()",
             "node is missing"),
            (lists, "api.nodes.reserve()", "it lacks names"),
            ({"names": [1]}, "api.logs.get_logs(history='full')", "names[…] is of type"),
        ):
            server.answer = {
                name.encode(): json.dumps(value).encode() for name, value in answer.items()
            }
            found = await self.failure(text, server)
            self.assertTrue(found.startswith("Failure communication issue"), (text, found))
            self.assertIn(told, found)
        server.answer = {b"nodes": b"[" * 60_000}
        self.assertIn("is not JSON", await self.failure("api.nodes.get_nodes()", server))

    async def test_streams(self) -> None:
        """Streams that end without a word, with the wrong one, or hold no log lines."""
        server = WrongServer(self)
        server.answer = {
            b"names": b'["one"]', b"nodes": json.dumps([NODE]).encode(), b"owned": b'["one"]',
            b"free": b"[]", b"owners": b"{}", b"reservations": b"[]",
        }
        run = "api.nodes.get_nodes().one.run('true', timeout=9)"
        logs = "list(api.logs.get_logs(history='full'))"
        arrow = "api.logs.get_logs(history='full').to_arrow()"
        end = frames.encode(frames.RESULT, b'{"status": 0}')
        for stream, text in (
            (frames.encode(frames.RESULT, b"{"), run), (frames.encode(frames.RESULT, b"[]"), run),
            (frames.encode(frames.RESULT, b'{"status": "x"}'), run),
            (b"Z\0\0\0\0", run), (b"D\xff\xff\xff\xff", run),
            *((frames.encode(frames.DATA, data) + end, text)
              for text in (logs, arrow) for data in (
                  b"\xff" * 99, WRONG_BLOCK, block(b"[]"), block(b"x"), block(b'[["a"]]'),
                  block(b'[["a", 1]]'), block(which=5), block(which=-1), block(size=-1),
                  block(size=2), block(size=0), block(text=b"\xff"), block(count=2),
              )),
            (frames.encode(frames.DATA, block(moment=1 << 62)) + end, logs),
        ):
            server.stream = stream
            found = await self.failure(text, server)
            self.assertTrue(found.startswith("Failure communication issue"), (stream, text, found))

    async def test_commands(self) -> None:
        """The walt command tells it, too."""
        server = WrongServer(self)
        server.stream = frames.encode(frames.DATA, WRONG_BLOCK)
        for words in (("node", "show"), ("image", "show"), ("device", "show"), ("log", "show",
                      "--history", "full"), ("node", "boots", "one"), ("node", "reboot", "one")):
            command = Walt(server, *words)
            command.transport.closeStdin()  # type: ignore[attr-defined]
            self.assertEqual((await command.ended, command.out), (1, b""), words)
            self.assertIn(b"makes no sense", command.err)
            self.assertNotIn(b"Traceback", command.err)
