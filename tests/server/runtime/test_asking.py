from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from walt.server.runtime.asking import Address, ask_datagram, ask_stream
from walt.server.runtime.watching import NoAnswer

LOCAL = "127.0.0.1"


def closed_port(kind: int) -> int:
    """Return a port at which nobody listens."""
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind((LOCAL, 0))
        return int(one.getsockname()[1])


class _Answerer(DatagramProtocol):
    """Answers the question number `at` and those that follow; notes what it gets."""

    def __init__(self, at: int = 1) -> None:
        self.at = at
        self.got: list[bytes] = []
        self.last: Deferred[bytes] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.got.append(datagram)
        if datagram == b"bye":
            self.last.callback(datagram)
        elif len(self.got) >= self.at:
            for answer in (b"", b"noise", b"answer to " + datagram):
                self.transport.write(answer, addr)


def accept(raw: bytes, sender: Address) -> bytes | None:
    """Take the answer, not the noise."""
    if raw == b"answer to wrong":
        raise NoAnswer("wrong")
    return raw if raw.startswith(b"answer") else None


class DatagramTests(TestCase):
    def listen(self, answerer: _Answerer) -> Address:
        """Open a port for the answerer."""
        port: Any = reactor.listenUDP(0, answerer, interface=LOCAL)
        self.addCleanup(port.stopListening)
        return LOCAL, port.getHost().port

    async def test_answer(self) -> None:
        """Questions are repeated until one is answered; noise is none; a farewell follows."""
        answerer = _Answerer(3)
        peer = self.listen(answerer)
        answer = await ask_datagram(
            reactor, lambda one: one.sendto(b"hello", peer), accept, farewell=b"bye"
        )
        self.assertEqual(answer, b"answer to hello")
        await answerer.last
        self.assertEqual(answerer.got, [b"hello"] * 3 + [b"bye"])

    async def test_wrong_answer(self) -> None:
        """What the reader of answers says is told to the one who asks."""
        peer = self.listen(_Answerer())
        asking = Deferred.fromCoroutine(
            ask_datagram(reactor, lambda one: one.send(b"wrong"), accept, peer=peer)
        )
        await self.assertFailure(asking, NoAnswer)

    async def test_closed_port(self) -> None:
        """With a peer a closed port is noticed."""
        peer = (LOCAL, closed_port(socket.SOCK_DGRAM))
        asking = Deferred.fromCoroutine(
            ask_datagram(reactor, lambda one: one.send(b"hello"), accept, peer=peer)
        )
        error = await self.assertFailure(asking, NoAnswer)
        self.assertEqual(str(error), "nothing listens at its port")

    async def test_impossible(self) -> None:
        """An address that is not ours, a network that is not there: OSError."""
        for own, to in (("192.0.2.1", LOCAL), ("", "255.255.255.255")):
            asking = Deferred.fromCoroutine(ask_datagram(
                reactor, lambda one, to=to: one.sendto(b"hello", (to, 9)), accept, own=(own, 0)
            ))
            await self.assertFailure(asking, OSError)

    async def test_given_up(self) -> None:
        """Cancelled, nothing is left, and nothing was logged meanwhile."""
        events: list[Any] = []
        peer = self.listen(_Answerer(9))
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        asking = Deferred.fromCoroutine(
            ask_datagram(reactor, lambda one: one.send(b"hello"), accept, peer=peer)
        )
        asking.cancel()
        await self.assertFailure(asking, CancelledError)
        self.assertEqual(events, [])


class _Talker(Protocol):
    """Says something, in two pieces, to who connects; `leave`: then closes."""

    def __init__(self, words: bytes, leave: bool) -> None:
        self.words, self.leave = words, leave
        self.got = b""
        self.end: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        half = len(self.words) // 2
        self.transport.write(self.words[:half])
        self.later = reactor.callLater(0.05, self.rest, self.words[half:])

    def rest(self, words: bytes) -> None:
        self.transport.write(words)
        if self.leave:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any) -> None:
        if self.later.active():
            self.later.cancel()
        self.end.callback(None)


def words(received: bytes) -> bytes | None:
    """Take a line of text."""
    if received.startswith(b"wrong"):
        raise NoAnswer("wrong")
    return received if received.endswith(b"\n") else None


class StreamTests(TestCase):
    @staticmethod
    def endpoint(port: int) -> TCP4ClientEndpoint:
        """Return where to ask."""
        return TCP4ClientEndpoint(reactor, LOCAL, port)

    def listen(self, said: bytes, leave: bool = False) -> tuple[_Talker, int]:
        """Open a port for one talker."""
        talker = _Talker(said, leave)
        port: Any = reactor.listenTCP(
            0, Factory.forProtocol(lambda: talker), interface=LOCAL
        )
        self.addCleanup(port.stopListening)
        return talker, port.getHost().port

    async def test_answer(self) -> None:
        """The pieces are one answer; what is sent arrives, and the connection ends."""
        talker, port = self.listen(b"welcome\n")
        answer = await ask_stream(self.endpoint(port), words, send=b"hello ", farewell=b"bye")
        self.assertEqual(answer, b"welcome\n")
        await talker.end
        self.assertEqual(talker.got, b"hello bye")

    async def test_bad_answers(self) -> None:
        """A wrong word, the end of the connection, an endless answer, a closed port."""
        for said, leave, problem in (
            (b"wrong", False, "wrong"), (b"wel", True, "it closed the connection"),
            (b"x" * 200_000, False, "an answer without end"),
        ):
            talker, port = self.listen(said, leave)
            asking = Deferred.fromCoroutine(ask_stream(self.endpoint(port), words))
            self.assertEqual(str(await self.assertFailure(asking, NoAnswer)), problem)
            await talker.end
        asking = Deferred.fromCoroutine(
            ask_stream(self.endpoint(closed_port(socket.SOCK_STREAM)), words)
        )
        error = await self.assertFailure(asking, NoAnswer)
        self.assertEqual(str(error), "nothing listens at its port")

    async def test_socket_that_is_not_there(self) -> None:
        """A daemon that is starting has not made its socket yet."""
        missing = UNIXClientEndpoint(reactor, os.path.abspath(self.mktemp()))
        asking = Deferred.fromCoroutine(ask_stream(missing, words))
        error = await self.assertFailure(asking, NoAnswer)
        self.assertEqual(str(error), "it has not made its socket")

    async def test_given_up(self) -> None:
        """Cancelled while it connects or waits, nothing is left."""
        talker, port = self.listen(b"wel")
        early = Deferred.fromCoroutine(ask_stream(self.endpoint(port), words))
        early.cancel()
        await self.assertFailure(early, CancelledError)
        asking = Deferred.fromCoroutine(ask_stream(self.endpoint(port), words))
        reactor.callLater(0.2, asking.cancel)
        await self.assertFailure(asking, CancelledError)
        await talker.end
