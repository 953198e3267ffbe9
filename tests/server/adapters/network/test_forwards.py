from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.fakes.services import FakeForwarder
from tests.patience import patient
from walt.common.errors import Conflict
from walt.server.adapters.network.forwards import Forwards
from walt.server.domain.network.interfaces import IForwarder

BIG = bytes(range(256)) * 16384


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    """A device that answers when the peer has sent all; `made` has its connections."""

    made: list[Echo] = []

    def connectionMade(self) -> None:
        Echo.made.append(self)
        self.got = b""

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def readConnectionLost(self) -> None:
        self.transport.write(self.got)  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass


class Caller(Protocol):
    """Sends something, ends its sending, collects the answer."""

    def __init__(self) -> None:
        self.got = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: object = None) -> None:
        self.done.callback(self.got)


class ForwardsTests(TestCase):
    timeout = patient(30)

    async def setUp(self) -> None:
        self.patch(Echo, "made", [])
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        device = await endpoint.listen(Factory.forProtocol(Echo))
        self.addCleanup(device.stopListening)
        self.device_port = device.getHost().port
        spare = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.port = spare.getHost().port
        await spare.stopListening()
        self.forwards = Forwards(reactor, interface="127.0.0.1")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.forwards.close(self.port)))

    async def call(self) -> Caller:
        return await TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(
            Factory.forProtocol(Caller)
        )

    async def test_relays_both_ways(self) -> None:
        """Megabytes go through, and the end of one direction is passed on."""
        await self.forwards.open(self.port, "127.0.0.1", self.device_port)
        callers = [await self.call() for _ in range(3)]
        for number, caller in enumerate(callers):
            caller.transport.write(BIG[number:])
            caller.transport.loseWriteConnection()
        for number, caller in enumerate(callers):
            self.assertEqual(await caller.done, BIG[number:])

    async def test_close_ends_connections(self) -> None:
        """Closing ends every connection and frees the port."""
        await self.forwards.open(self.port, "127.0.0.1", self.device_port)
        callers = [await self.call() for _ in range(3)]
        while len(Echo.made) < 3:
            await deferLater(reactor, 0.01, lambda: None)
        await self.forwards.close(self.port)
        for caller in callers:
            await caller.done
        await self.assertFailure(
            Deferred.fromCoroutine(self.call()), ConnectionRefusedError
        )
        self.assertTrue(self.forwards.is_free(self.port))

    async def test_device_down(self) -> None:
        """A device that refuses makes the caller's connection end."""
        await self.forwards.open(self.port, "127.0.0.1", 1)
        caller = await self.call()
        self.assertEqual(await caller.done, b"")

    async def test_port_in_use(self) -> None:
        """A port that somebody listens on is not free and cannot be opened."""
        self.assertFalse(self.forwards.is_free(self.device_port))
        await self.assertFailure(
            Deferred.fromCoroutine(self.forwards.open(self.device_port, "127.0.0.1", 80)),
            Conflict,
        )

    async def test_contract(self) -> None:
        """Fake and real one: open, refused twice, closed twice."""
        for forwarder in (FakeForwarder(), self.forwards):
            verifyObject(IForwarder, forwarder)
            self.assertTrue(forwarder.is_free(self.port))
            await forwarder.open(self.port, "127.0.0.1", self.device_port)
            self.assertFalse(forwarder.is_free(self.port))
            again = forwarder.open(self.port, "127.0.0.1", 80)
            await self.assertFailure(Deferred.fromCoroutine(again), Conflict)
            for _ in range(2):
                await forwarder.close(self.port)
            self.assertTrue(forwarder.is_free(self.port))
