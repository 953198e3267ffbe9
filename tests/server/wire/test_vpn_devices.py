"""The socket where tunnels get their devices, byte by byte and with real descriptors."""

from __future__ import annotations

import array
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.fakes.vpn import FakeVpnTaps
from tests.patience import patient
from tests.server.domain.vpn.test_tunnels import FakeVpn
from tests.system.netns import short_dir
from walt.common.errors import Unavailable
from walt.server.domain.vpn.tunnels import Tunnels
from walt.server.wire.vpn_devices import MAX_LINE, PATIENCE, DeviceFactory, DeviceProtocol

HELLO = b'{"hello": "vpn_1"}\n'


def open_files() -> int:
    """Return how many descriptors of /dev/null this process has."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}") == "/dev/null"
        except OSError:
            continue
    return count


class SlowTransport(StringTransport):
    """Keeps descriptors until `flush`, as one whose peer does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []
        self.aborted = False

    def sendFileDescriptor(self, number: int) -> None:
        self.descriptors.append(number)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        producer.resumeProducing()

    def flush(self) -> None:
        """Send what waits, and ask for more."""
        self.descriptors.clear()
        if self.producer is not None:
            self.producer.resumeProducing()

    def abortConnection(self) -> None:
        self.aborted = True


class DevicesTests(TestCase):
    timeout = patient(30)

    def setUp(self) -> None:
        self.vpn: Any = FakeVpn()
        self.tunnels = Tunnels(self.vpn, lambda text: None)
        self.taps, self.clock = FakeVpnTaps(), Clock()
        self.path = Path(short_dir(self)) / "vpn.sock"
        port = reactor.listenUNIX(  # type: ignore[attr-defined]
            str(self.path), DeviceFactory(self.tunnels, self.taps, self.clock)
        )
        self.addCleanup(port.stopListening)
        self.before = open_files()

    def connect(self, data: bytes = b"") -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(self.path))
        one.setblocking(False)
        self.addCleanup(one.close)
        one.sendall(data)
        return one

    async def turn(self, seconds: float = 0.02) -> None:
        await deferLater(reactor, seconds, lambda: None)

    async def answer(self, one: socket.socket) -> tuple[bytes, list[int]]:
        """Return the next bytes and descriptors; no bytes: the end."""
        while True:
            await self.turn()
            try:
                data, controls, _, _ = one.recvmsg(4096, socket.CMSG_SPACE(16))
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return b"", []
            found = array.array("i")
            for _, _, payload in controls:
                found.frombytes(payload)
            for descriptor in found:
                self.addCleanup(os.close, descriptor)
            return data, list(found)

    async def test_life(self) -> None:
        """A line, a descriptor, a line; the end of either side is the end of the tunnel."""
        one = self.connect(HELLO)
        _, given = await self.answer(one)
        self.assertEqual((len(given), self.taps.names), (1, ["walt-vpn0"]))
        one.sendall(b"GOT\n")
        await self.turn()
        self.assertEqual(len(self.tunnels), 1)
        self.clock.advance(10 * PATIENCE)
        await self.turn()
        self.assertEqual(len(self.tunnels), 1)
        self.assertEqual(open_files(), self.before + 1)  # the one that we were given
        one.close()
        await self.turn(0.05)
        self.assertEqual(len(self.tunnels), 0)

    async def test_ended_by_the_server(self) -> None:
        """A revoked key, or another tunnel of the same board."""
        one = self.connect(HELLO)
        await self.answer(one)
        other = self.connect(HELLO)
        self.assertEqual(len((await self.answer(other))[1]), 1)
        while (await self.answer(one))[0]:
            pass
        self.vpn.revoked.tell("vpn_1")
        while (await self.answer(other))[0]:
            pass
        self.assertEqual(len(self.tunnels), 0)

    async def test_refused(self) -> None:
        """A line says why, and no descriptor comes with it."""
        self.vpn.refused["vpn_1"] = "the key vpn_1 is revoked"
        one = self.connect(HELLO)
        self.assertEqual(await self.answer(one), (b"the key vpn_1 is revoked\n", []))
        self.assertEqual((await self.answer(one))[0], b"")
        self.vpn.refused = {}
        self.taps.error = Unavailable("no network device")
        self.assertEqual((await self.answer(self.connect(HELLO)))[0], b"no network device\n")
        self.taps.error = RuntimeError("a bug")
        self.assertIn(b"internal error", (await self.answer(self.connect(HELLO)))[0])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        await self.turn(0.05)
        self.assertEqual((len(self.tunnels), open_files()), (0, self.before))

    async def test_nonsense(self) -> None:
        """What is no greeting ends the connection; so does silence, and a line without end."""
        for data in (
            b"\n", b"x\n", b"[]\n", b'{"hello": 1}\n', b'{"hello": ""}\n', b"\xff\n",
            b'{"hello": "a\\nb"}\n', b'{"hello": "' + b"x" * 300 + b'"}\n', b"[" * 1000 + b"\n",
            b"x" * (MAX_LINE + 1),
        ):
            self.assertEqual(await self.answer(self.connect(data)), (b"", []), data)
        silent = [self.connect(), self.connect(HELLO[:5])]
        await self.turn()
        self.clock.advance(PATIENCE + 1)
        for one in silent:
            self.assertEqual(await self.answer(one), (b"", []))

    async def test_answers_too_early(self) -> None:
        """Who speaks before it has its device has none; no other file goes in its place."""
        for early in (HELLO + b"GOT\n", HELLO + b"G", HELLO + HELLO):
            self.assertEqual(await self.answer(self.connect(early)), (b"", []), early)
        self.taps.gate = gate = Deferred[None]()
        one = self.connect(HELLO)
        await self.turn()
        one.sendall(b"GOT\n")
        await self.turn()
        gate.callback(None)
        self.assertEqual(await self.answer(one), (b"", []))
        await self.turn(0.05)
        self.assertEqual((len(self.tunnels), open_files()), (0, self.before))

    def test_kept_until_it_has_left(self) -> None:
        """The number of a descriptor that waits to be sent belongs to no other file."""
        for early in (b"", b"GOT\n"):
            transport = SlowTransport()
            protocol = DeviceProtocol(self.tunnels, self.taps, self.clock)
            protocol.makeConnection(transport)
            protocol.dataReceived(HELLO)
            (tap,) = transport.descriptors
            if early:
                protocol.dataReceived(early)
            self.assertEqual(os.readlink(f"/proc/self/fd/{tap}"), "/dev/null")
            self.assertEqual(transport.aborted, bool(early))
            if not early:
                transport.flush()
                self.assertEqual(open_files(), self.before)
                protocol.dataReceived(b"GOT\n")
                self.assertFalse(transport.aborted)
            protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual((len(self.tunnels), open_files()), (0, self.before))

    async def test_left_before_it_is_admitted(self) -> None:
        """Who has gone meanwhile opens nothing, and does not end the tunnel that is there."""
        good = self.connect(HELLO)
        await self.answer(good)
        self.assertEqual((await self.answer(good))[0], b"alt-vpn0\n")  # the rest of the line
        self.vpn.gate = gate = Deferred[None]()
        gone = self.connect(HELLO)
        await self.turn()
        gone.close()
        await self.turn(0.05)
        self.vpn.gate = None
        gate.callback(None)
        await self.turn(0.05)
        self.assertEqual((len(self.tunnels), self.taps.names), (1, ["walt-vpn0"]))
        with self.assertRaises(BlockingIOError):  # it goes on
            good.recv(1)
        good.close()
        await self.turn(0.05)
        self.assertEqual(len(self.tunnels), 0)
        self.assertEqual(open_files(), self.before + 1)  # the one that `good` was given

    async def test_left_while_it_is_opened(self) -> None:
        """A device that nobody wants any more is closed; so is one that nobody takes."""
        self.taps.gate = gate = Deferred[None]()
        one = self.connect(HELLO)
        await self.turn()
        one.close()
        await self.turn(0.05)
        gate.callback(None)
        await self.turn()
        self.assertEqual((open_files(), len(self.tunnels)), (self.before, 0))
        two = self.connect(HELLO)  # takes it, and never says so
        await self.turn(0.05)
        self.clock.advance(PATIENCE + 1)
        await self.turn(0.05)
        self.assertEqual(len(self.tunnels), 0)
        two.close()
        self.assertEqual(open_files(), self.before)
