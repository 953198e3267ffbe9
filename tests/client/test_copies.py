"""`walt node cp` and `expose` as processes; the "nodes" are shells and ports of this machine."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.client.platform import BOBS, Server, Walt, reactor, until
from tests.client.test_api import Script
from tests.fakes.local_nodes import local_sessions
from tests.patience import patient
from tests.server.streams.platform import NODE
from walt.client.operations import archives, transfers
from walt.common import frames
from walt.common.transfers import FILE, Place
from walt.server.streams.transfers import TarFromNodeRequest, TarToNodeRequest


class CopyTests(TestCase):
    timeout = patient(30)

    def setUp(self) -> None:
        self.server = Server(self)
        platform = self.server.platform
        commands = platform.commands(local_sessions(reactor))
        platform.requests["REQ_TAR_FROM_NODE"] = partial(TarFromNodeRequest, commands)
        platform.requests["REQ_TAR_TO_NODE"] = partial(TarToNodeRequest, commands)
        self.here, self.there = Path(self.mktemp()), Path(self.mktemp()).resolve()
        self.here.mkdir()
        self.there.mkdir()

    async def cp(self, source: str, target: str, *words: str, **options: Any) -> Walt:
        """Copy; an operand that starts with `:` is a path in the node's directory."""
        operands = [
            f"{options.get('node', 'node-1')}:{self.there}{one[1:]}" if one.startswith(":")
            else one if one == "booted-image" else os.path.join(self.here, one)
            for one in (source, target)
        ]
        walt = Walt(self.server, "node", "cp", *operands)
        walt.write(options.get("data", b""))
        walt.transport.closeStdin()
        walt.status = await walt.ended  # type: ignore[attr-defined]
        return walt

    async def ok(self, source: str, target: str) -> None:
        walt = await self.cp(source, target)
        self.assertEqual((walt.status, walt.err), (0, b""), (source, target))  # type: ignore[attr-defined]
        self.assertIn(b"Transferring... done (", walt.out)

    async def test_scripts(self) -> None:
        """The same from Python: quiet, errors are exceptions; sets have a directory for each."""
        (self.here / "a:b").write_bytes(b"data")
        (self.here / "tree").mkdir()
        (self.here / "tree" / "f").write_bytes(b"more")
        script = Script(self.server, (
            "import os\n"
            f"os.chdir({str(self.here.resolve())!r})\n"
            f"there = {str(self.there)!r}\n"
            "nodes = api.nodes.get_nodes('node-1,node-2')\n"
            "node = nodes['node-1']\n"
            "node.put('a:b', there + '/x:y')\n"
            "nodes.collect(there + '/x:y', 'first')\n"
            "node.get(there + '/x:y', 'back')\n"
            "node.put('tree', there)\n"
            "nodes.collect(there + '/tree', 'all')\n"
            "nodes.put('a:b', there + '/')\n"
            "print(sorted(os.listdir('.')), open('all/node-2/tree/f').read())\n"
            "for work in (lambda: node.put('none', there), lambda: node.get(there + '/none'),\n"
            "             lambda: node.put('a:b', there + '/no/where'),\n"
            "             lambda: nodes.put('a:b', there + '/none/')):\n"
            "    try:\n"
            "        work()\n"
            "    except Exception as error:\n"
            "        print(type(error).__name__, error)\n"
        ))
        self.assertEqual((await script.ended, script.err), (0, b""))
        first, *refused = script.out.decode().splitlines()
        self.assertEqual(first, "['a:b', 'all', 'back', 'first', 'tree'] more")
        self.assertEqual([one.split()[0] for one in refused], ["Failure"] * 4)
        self.assertEqual((self.there / "a:b").read_bytes(), b"data")

    async def test_names_of_bytes(self) -> None:
        """A name that is not UTF-8 is kept in a directory, and refused in words alone."""
        name = os.fsdecode(b"caf\xe9")
        (self.here / "tree").mkdir()
        (self.here / "tree" / name).write_bytes(b"data")
        await self.ok("tree", ":/")
        self.assertEqual((self.there / "tree" / name).read_bytes(), b"data")
        for source, target in ((f"tree/{name}", ":/"), (f":/tree/{name}", "back")):
            walt = await self.cp(source, target)
            self.assertEqual(walt.status, 1)  # type: ignore[attr-defined]
            self.assertIn(b"UTF-8", walt.err)

    async def test_files(self) -> None:
        """Into a directory, under a new name, over a file; both ways; odd names."""
        (self.here / "f").write_bytes(b"data")
        (self.here / "f").chmod(0o750)
        for target, path in (
            ("", "f"), (":/new", "new"), (":/new", "new"), (":/-a 'b' \"$c\"\n", "-a 'b' \"$c\"\n"),
        ):
            await self.ok("f", target or ":")
            self.assertEqual((self.there / path).read_bytes(), b"data")
            self.assertEqual(stat.S_IMODE((self.there / path).stat().st_mode), 0o750)
        (self.there / "new").write_bytes(b"changed")
        await self.ok(":/new", "f")
        self.assertEqual((self.here / "f").read_bytes(), b"changed")
        (self.here / "dir").mkdir()
        await self.ok(":/-a 'b' \"$c\"\n", "dir")
        self.assertEqual((self.here / "dir" / "-a 'b' \"$c\"\n").read_bytes(), b"data")
        (self.there / "link").symlink_to("new")
        await self.ok(":/link", "followed")
        self.assertEqual((self.here / "followed").read_bytes(), b"changed")

    async def test_colons(self) -> None:
        """Names with a time of day, both ways."""
        (self.here / "2026-11-29T12:30:00.log").write_bytes(b"data")
        await self.ok("2026-11-29T12:30:00.log", ":")
        self.assertEqual((self.there / "2026-11-29T12:30:00.log").read_bytes(), b"data")
        await self.ok(":/2026-11-29T12:30:00.log", "a:b")
        self.assertEqual((self.here / "a:b").read_bytes(), b"data")

    async def test_directories(self) -> None:
        """Stored in one that exists, renamed, poured out with `/.`; links are kept."""
        top = self.here / "d"
        (top / "sub").mkdir(parents=True)
        (top / "sub" / "x").write_bytes(b"1")
        (top / ".hidden").write_bytes(b"2")
        (top / "link").symlink_to("sub/x")
        for target, path in ((":", "d"), (":/renamed", "renamed"), (":", "d")):
            await self.ok("d", target)
            self.assertEqual(os.readlink(self.there / path / "link"), "sub/x")
            self.assertEqual((self.there / path / ".hidden").read_bytes(), b"2")
        await self.ok("d/.", ":")
        self.assertEqual((self.there / "sub" / "x").read_bytes(), b"1")
        mode = self.there.stat().st_mode
        (self.here / "back").mkdir()
        await self.ok(":/d", "back")
        self.assertEqual((self.here / "back" / "d" / "sub" / "x").read_bytes(), b"1")
        await self.ok(":/d/.", "back")
        self.assertEqual((self.here / "back" / ".hidden").read_bytes(), b"2")
        await self.ok(":/d", "other")
        self.assertEqual(os.readlink(self.here / "other" / "link"), "sub/x")
        self.assertEqual(self.there.stat().st_mode, mode)
        (self.here / "empty").mkdir()
        await self.ok("empty", ":")
        await self.ok("empty/.", ":/empty")
        await self.ok(":/empty", "empty-again")
        await self.ok(":/empty/.", "empty-again")
        self.assertEqual(os.listdir(self.here / "empty-again"), [])

    async def test_refused(self) -> None:
        """Missing paths, kinds that do not fit: status 1, told on stderr; 2 for wrong words."""
        (self.here / "d").mkdir()
        (self.here / "f").write_bytes(b"")
        (self.there / "f").write_bytes(b"")
        for source, target, text in (
            ("f", "d", b"Usage: walt node cp"), (":/f", ":/g", b"Usage: walt node cp"),
            ("f", "booted-image", b"Usage: walt node cp"), ("ghost", ":/f", b"ghost"),
            (":/ghost", "f", b"ghost"), ("d", ":/f", b"is a file"),
            (":/f", "no/where", b"no/where"), ("f", ":/no/where", b"no/where"),
            (":", "f", b"is a file"), ("/dev/null", ":/f", b"neither"),
        ):
            walt = await self.cp(source, target)
            status = 2 if text.startswith(b"Usage") else 1
            self.assertEqual(walt.status, status, (source, target))  # type: ignore[attr-defined]
            self.assertIn(text, walt.err)
            self.assertNotIn(b"Traceback", walt.err)
        walt = await self.cp("f", ":/x", node="walt-server")
        self.assertIn(b"is not a node", walt.err)
        self.assertEqual(os.listdir(self.there), ["f"])

    async def test_another_user(self) -> None:
        """A node of somebody else needs a confirmation."""
        (self.here / "f").write_bytes(b"")
        declined = await self.cp("f", ":/x", node=BOBS.name, data=b"n\n")
        self.assertEqual(declined.status, 1)  # type: ignore[attr-defined]
        self.assertIn(b"bobs-node belongs to bob.", declined.err)
        self.assertFalse((self.there / "x").exists())
        await self.cp("f", ":/x", node=BOBS.name, data=b"y\n")
        self.assertTrue((self.there / "x").exists())

    async def test_node_down(self) -> None:
        """A node that answers nothing is said to be unreachable, at once; else it is waited for."""
        (self.here / "f").write_bytes(b"")
        self.server.down()
        self.server.link.refusals[NODE.ip or ""] = "Connection timed out"
        walt = await self.cp("f", ":/x")
        self.assertEqual(walt.status, 1)  # type: ignore[attr-defined]
        self.assertIn(b"unreachable (Connection timed out); retry later", walt.err)
        self.server.link.refusals.clear()
        waiting = Walt(self.server, "node", "cp", str(self.here / "f"), f"node-1:{self.there}/x")
        await until(lambda: self.server.platform.status._waiters)
        waiting.transport.signalProcess("INT")
        self.assertEqual(await waiting.ended, 130)
        self.server.platform.status.booted(NODE.mac)
        self.server.questions.down.add(NODE.ip or "")
        walt = await self.cp("f", ":/x")
        self.assertIn(b"unreachable", walt.err)

    async def test_remote_failure(self) -> None:
        """What the remote side says is shown; the status is 1; the old file stays."""
        (self.here / "big").write_bytes(bytes(3 << 20))
        small = self.there / "small"
        small.mkdir()
        mount = Walt(None, shell=f"mount -t tmpfs -o size=1m none '{small}'")
        self.assertEqual(await mount.ended, 0)
        try:
            (small / "big").write_bytes(b"old")
            walt = await self.cp("big", ":/small/big")
            self.assertEqual(walt.status, 1)  # type: ignore[attr-defined]
            self.assertIn(b"tar: ", walt.err)
            self.assertEqual((small / "big").read_bytes(), b"old")
            self.assertEqual(os.listdir(small), ["big"])
        finally:
            await Walt(None, shell=f"umount '{small}'").ended

    async def test_local_failure(self) -> None:
        """A full disk here: told, and nothing half written is left."""
        (self.there / "big").write_bytes(bytes(3 << 20))
        small = self.here / "small"
        small.mkdir()
        self.assertEqual(
            await Walt(None, shell=f"mount -t tmpfs -o size=1m none '{small}'").ended, 0
        )
        try:
            walt = await self.cp(":/big", "small")
            self.assertEqual(walt.status, 1)  # type: ignore[attr-defined]
            self.assertIn(b"No space left", walt.err)
            self.assertEqual(os.listdir(small), [])
        finally:
            await Walt(None, shell=f"umount '{small}'").ended

    async def test_client_killed(self) -> None:
        """A client that vanishes in the middle leaves no program and no half file."""
        source = self.here / "zero"
        source.touch()
        os.truncate(source, 1 << 40)
        walt = Walt(self.server, "node", "cp", str(source), f"node-1:{self.there}/x")
        await until(lambda: any(one.startswith(".walt-") for one in os.listdir(self.there)))
        walt.transport.signalProcess("KILL")
        await walt.ended
        await until(lambda: not _running(str(self.there)))
        self.assertFalse((self.there / "x").exists())

    async def test_server_lost(self) -> None:
        """The loss of the server in the middle: told, rc 1, nothing half written here."""
        source = self.there / "zero"
        source.touch()
        os.truncate(source, 1 << 40)
        walt = Walt(self.server, "node", "cp", f"node-1:{source}", str(self.here / "x"))
        await until(lambda: os.listdir(self.here))
        for stream in self.server.streams:
            stream.abort()
        self.assertEqual(await walt.ended, 1)
        self.assertIn(b"the connection to the server was lost", walt.err)
        self.assertEqual(os.listdir(self.here), [])

    async def test_progress(self) -> None:
        """On a terminal: a wheel and the size, then one line."""
        source = self.here / "f"
        source.touch()
        os.truncate(source, 40 << 20)
        walt = Walt(
            self.server, "node", "cp", str(source), f"node-1:{self.there}/x", terminal=True
        )
        self.assertEqual(await walt.ended, 0)
        self.assertIn(b"Transferring... | ", walt.out)
        self.assertIn(b"\rTransferring... done (4", walt.out)


def _running(text: str) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in command and int(process.name) != os.getpid():
            return True
    return False


class _EndedStream:
    """A stream whose other side told its end, and closed."""

    pending = 0

    def __init__(self) -> None:
        self.socket, other = socket.socketpair()
        other.close()
        self._frames = [[(frames.RESULT, b'{"status": 255}')]]

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Nobody reads."""

    def flush(self) -> None:
        """Nothing waits."""

    def received(self) -> Any:
        """Return the result, then the end."""
        return self._frames.pop() if self._frames else None

    def close(self) -> None:
        """Close."""
        self.socket.close()


class EndedUploadTests(SynchronousTestCase):
    def test_status(self) -> None:
        """The status of a remote side that ends first is known, although tarfile writes on."""
        source = Path(self.mktemp())
        source.write_bytes(bytes(3 * archives.BLOCK))
        self.patch(transfers, "Stream", lambda *words: _EndedStream())
        place = Place("/there", "x")
        told = transfers.Told()
        status = transfers.send("REQ_TAR_TO_NODE", {}, str(source), FILE, place, told)
        self.assertEqual(status, 255)


@implementer(IHalfCloseableProtocol)
class _Echo(Protocol):
    """Answers what it gets, in capitals; ends when the other side sent its end."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data.upper())

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


class _Caller(Protocol):
    """Keeps what it gets until the end."""

    def __init__(self) -> None:
        self.data = b""
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]
        self.ended.callback(self.data)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class ExposeTests(TestCase):
    timeout = patient(30)

    async def expose(self, *words: str, name: str = "node-1") -> tuple[Walt, int, int]:
        """Expose a port where an echo server listens."""
        self.server = Server(self)
        registry = self.server.platform.registry
        registry.subnet = IPv4Network("127.0.0.0/8")  # the relay goes to devices alone
        await registry.put(replace(registry.named(name), ip="127.0.0.1"))
        listening = reactor.listenTCP(0, Factory.forProtocol(_Echo), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        port, here = listening.getHost().port, _free_port()
        walt = Walt(self.server, *(words or ("node", "expose")), name, str(port), str(here))
        await walt.shows(f"Listening on port {here}".encode())
        return walt, port, here

    async def call(self, port: int) -> Any:
        caller = _Caller()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        while True:
            try:
                await endpoint.connect(Factory.forProtocol(lambda: caller))
                return caller
            except ConnectError:
                await deferLater(reactor, 0.05)

    async def test_relay(self) -> None:
        """Several connections at once, much data, half-close; a line for each; ctrl-C: rc 1."""
        walt, _, here = await self.expose()
        callers = [await self.call(here) for _ in range(3)]
        data = os.urandom(1).lower() + b"abc" * 1_000_000
        for caller in callers:
            caller.transport.write(data)
            caller.transport.loseWriteConnection()
        for caller in callers:
            self.assertEqual(await caller.ended, data.upper())
        self.assertEqual(walt.out.count(b"Connection from 127.0.0.1 port "), 3)
        walt.transport.signalProcess("INT")
        self.assertEqual(await walt.ended, 130)

    async def test_refused_by_the_device(self) -> None:
        """The reason is printed, that connection is closed, the command goes on."""
        walt, port, here = await self.expose("device", "expose", name="switch-1")
        registry = self.server.platform.registry
        await registry.put(replace(registry.named("switch-1"), ip="127.0.0.9"))
        caller = await self.call(here)
        self.assertEqual(await caller.ended, b"")
        await until(lambda: b"\n" in walt.err)
        self.assertIn(
            f"could not connect to 127.0.0.9 port {port}: Connection refused".encode(), walt.err
        )
        await registry.put(replace(registry.named("switch-1"), ip="127.0.0.1"))
        caller = await self.call(here)
        caller.transport.write(b"again")
        await until(lambda: caller.data == b"AGAIN")
        walt.transport.signalProcess("KILL")
        await caller.ended

    async def test_refused(self) -> None:
        """Bad ports, ports in use, unknown devices, nodes of others: rc 1 at once."""
        walt, _, here = await self.expose()
        for words, text in (
            (("node-1", "0", "1"), b"'0' is not a port"),
            (("node-1", "80", "x"), b"'x' is not a port"),
            (("node-1", "80", str(here)), b"cannot listen on port"),
            (("ghost", "80", "8080"), b"ghost"),
        ):
            other = Walt(self.server, "node", "expose", *words)
            self.assertEqual(await other.ended, 1)
            self.assertIn(text, other.err)
        other = Walt(self.server, "device", "expose", BOBS.name, "80", "8080")
        other.write(b"n\n")
        other.transport.closeStdin()
        self.assertEqual(await other.ended, 1)
        walt.transport.signalProcess("INT")
        await walt.ended


class DeviceShellTests(TestCase):
    timeout = patient(30)

    async def test_shell(self) -> None:
        """The account is asked for, unless named; nodes have their own command."""
        server = Server(self)
        for words, data, account in (
            (("--user", "admin"), b"", "admin"), ((), b"\n", "root"), ((), b"joe\n", "joe"),
        ):
            server.platform.sessions.made.clear()
            walt = Walt(server, "device", "shell", *words, "switch-1")
            walt.write(data)
            walt.transport.closeStdin()
            program = await server.program()
            self.assertEqual((program.ip, program.command), ("192.168.1.3", account))
            program.options["output"](b"welcome\n")
            program.options["ended"](0)
            self.assertEqual(await walt.ended, 0)
            self.assertIn(b"welcome", walt.out)
        for words, text in (
            (("node-1",), b"use: walt node shell node-1"), (("ghost",), b"ghost"),
            (("--user", "-oProxyCommand=x", "switch-1"), b"not the name of an account"),
        ):
            walt = Walt(server, "device", "shell", *words)
            walt.transport.closeStdin()
            self.assertEqual(await walt.ended, 1)
            self.assertIn(text, walt.err)
