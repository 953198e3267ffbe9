"""The server as the bus of one D-Bus client."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jeepney import DBusAddress, MessageType, new_error, new_method_call, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.low_level import Message, Parser
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.nfs.bus import BusConnection

THERE = DBusAddress("/there", "org.there", "org.there.Things")
HANDSHAKE = b"\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"


class _Handle:
    def __init__(self, uid: int) -> None:
        self.uid = uid

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        from struct import pack

        return pack("3i", os.getpid(), self.uid, 0)


class _Transport(StringTransport):
    def __init__(self, uid: int) -> None:
        super().__init__()
        self.uid = uid
        self.aborted = False

    def getHandle(self) -> Any:
        return _Handle(self.uid)

    def abortConnection(self) -> None:
        self.aborted = True


class BusTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.connect()

    def connect(self, uid: int = 7) -> None:
        self.clock = Clock()
        self.ready: list[BusConnection] = []
        self.lost: list[BusConnection] = []
        self.bus = BusConnection(
            self.clock, 7, on_ready=self.ready.append, on_lost=self.lost.append
        )
        self.transport = _Transport(uid)
        self.bus.makeConnection(self.transport)

    def receive(self, data: bytes) -> bytes:
        self.bus.dataReceived(data)
        answer = self.transport.value()
        self.transport.clear()
        return answer

    def shake_hands(self) -> None:
        lines = self.receive(HANDSHAKE).split(b"\r\n")
        self.assertRegex(lines[0].decode(), "^OK [0-9a-f]{32}$")
        self.assertEqual(lines[1:], [b"ERROR", b""])

    def ask(self, message: Message, serial: int = 1) -> Message:
        (answer,) = Parser().feed(self.receive(message.serialise(serial)))
        return answer

    def up(self) -> None:
        self.shake_hands()
        self.ask(message_bus.Hello())
        self.ask(message_bus.RequestName("org.there"))
        self.assertEqual(self.ready, [self.bus])

    def call(self, limit: float = 5.0) -> tuple[Any, Message]:
        waiting = self.bus.call(THERE, "Do", "s", ("it",), limit=limit)
        (message,) = Parser().feed(self.transport.value())
        self.transport.clear()
        return waiting, message

    def test_a_client_gets_a_name(self) -> None:
        """Handshake, hello, name: then it may be called."""
        self.shake_hands()
        self.assertEqual(self.ask(message_bus.Hello()).body, (":1.1",))
        self.assertEqual(self.ready, [])
        self.assertEqual(self.ask(message_bus.RequestName("org.there")).body, (1,))
        self.assertEqual(self.ready, [self.bus])
        unknown = self.ask(message_bus.ListNames())
        self.assertIs(unknown.header.message_type, MessageType.error)

    def test_calls(self) -> None:
        """Answers find their call, in any order; an error has the client's words."""
        self.up()
        first, question = self.call()
        second, other = self.call()
        self.assertEqual(question.body, ("it",))
        self.receive(new_method_return(other, "u", (2,)).serialise(5))
        self.assertEqual(self.successResultOf(second), (2,))
        self.receive(new_error(question, "org.there.No", "s", ("not now",)).serialise(6))
        failure = self.failureResultOf(first, CommandFailed)
        self.assertIn("org.there.No not now", str(failure.value))

    def test_messages_without_sense(self) -> None:
        """One too large, one that cannot be read, one that disturbs who waits: the rest counts."""
        self.up()
        first, question = self.call()
        second, other = self.call()
        too_large = new_method_return(question, "ay", (b"x" * (33 << 20),)).serialise(5)
        for start in range(0, len(too_large), 1 << 20):
            self.receive(too_large[start:start + (1 << 20)])
        broken = bytearray(new_method_return(question, "u", (2,)).serialise(6))
        broken[1] = 77  # no kind of message
        no_serial = new_method_return(question)
        no_serial.header.fields = {}
        answer = new_method_return(other, "u", (3,)).serialise(8)
        self.receive(bytes(broken) + no_serial.serialise(7) + answer)
        self.assertEqual(self.successResultOf(second), (3,))
        self.assertNoResult(first)
        self.assertFalse(self.transport.aborted)
        self.receive(new_method_return(question, "u", (2,)).serialise(9))
        self.assertEqual(self.successResultOf(first), (2,))

    def test_no_messages(self) -> None:
        """Bytes that say nothing about the length of a message end the connection."""
        for start in (b"x" * 16, b"l" + b"\x01\0\x01" + b"\xff" * 12):
            self.connect()
            self.up()
            self.receive(start)
            self.assertTrue(self.transport.aborted)

    def test_no_answer(self) -> None:
        """A call has a limit; its late answer disturbs nobody."""
        self.up()
        waiting, question = self.call(limit=5)
        self.clock.advance(5)
        self.failureResultOf(waiting, Unavailable)
        self.receive(new_method_return(question).serialise(5))
        self.assertFalse(self.transport.aborted)

    def test_end(self) -> None:
        """The end of the connection fails what was asked."""
        self.up()
        waiting, _ = self.call()
        self.bus.connectionLost()
        self.failureResultOf(waiting, Unavailable)
        self.assertEqual(self.lost, [self.bus])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_users(self) -> None:
        """Only the user of the server is let in."""
        self.connect(uid=8)
        self.assertTrue(self.transport.aborted)

    def test_endless_handshake(self) -> None:
        """A handshake is short."""
        self.receive(b"\0" + b"x" * 5000)
        self.assertTrue(self.transport.aborted)

    @given(st.lists(st.integers(1, 40), max_size=60))
    def test_pieces(self, sizes: list[int]) -> None:
        """However the bytes arrive, the same is understood."""
        self.connect()
        data = HANDSHAKE + message_bus.Hello().serialise(1)
        data += message_bus.RequestName("org.there").serialise(2)
        for size in [*sizes, len(data)]:
            self.bus.dataReceived(data[:size])
            data = data[size:]
        self.assertEqual(self.ready, [self.bus])

    @given(st.binary(max_size=300))
    def test_hostile_bytes(self, data: bytes) -> None:
        """Whatever comes is refused or waited for, and never a bug."""
        self.connect()
        self.shake_hands()
        self.bus.dataReceived(data)
        message = bytearray(new_method_call(THERE, "Do", "s", ("it",)).serialise(1))
        self.connect()
        self.shake_hands()
        for at, byte in enumerate(data):
            message[at % len(message)] = byte
        self.bus.dataReceived(bytes(message))
