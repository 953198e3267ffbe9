"""The permanent connection of a booted node (N-077)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.server.streams.platform import FROM_NODE, NODE, SERVER, Platform
from walt.server.streams.base import Peer
from walt.server.streams.notify import EVERY, MOST_AT_ONCE, keep_alive

REQUEST = b"REQ_NOTIFY_BOOTUP_STATUS\n"


class NotifyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()

    @property
    def booted(self) -> bool:
        self.platform.clock.advance(0)  # notifications are taken some in a turn
        return self.platform.status.is_booted(NODE.mac)

    def events(self) -> list[str]:
        self.platform.clock.advance(1)
        return [one.line for one in self.platform.store.lines if one.issuer == SERVER.mac]

    def test_life(self) -> None:
        """OK first; the first byte confirms the boot; the end of the connection ends it."""
        connection = self.platform.connect(FROM_NODE, REQUEST)
        self.assertEqual(connection.raw(), b"OK\n")
        self.assertFalse(self.booted)
        connection.send(b"\n")
        self.assertTrue(self.booted)
        connection.send(b"\n")
        connection.leave()
        self.assertFalse(self.booted)
        self.assertEqual(self.events(), [
            "node node-1 is booted",
            "node node-1 is down (cause: unknown, note: server-detected disconnection)",
        ])

    def test_one_that_comes_and_goes_without_end(self) -> None:
        """Some are taken at once, then so many as a node may need; the logs stay short."""
        def taken() -> bool:
            connection = self.platform.connect(FROM_NODE, REQUEST + b"\n")
            connection.leave()
            return connection.raw() == b"OK\n"

        self.assertEqual(sum(taken() for _ in range(500)), MOST_AT_ONCE)
        self.platform.clock.advance(EVERY)
        self.assertEqual(sum(taken() for _ in range(500)), 1)
        self.platform.clock.advance(EVERY * MOST_AT_ONCE)
        self.assertTrue(taken())
        self.assertTrue(len(self.events()) < 4 * MOST_AT_ONCE)

    def test_confirmation_with_the_request(self) -> None:
        """The script sends the request and its newline in one segment."""
        connection = self.platform.connect(FROM_NODE, REQUEST + b"\n")
        self.assertEqual(connection.raw(), b"OK\n")
        self.assertTrue(self.booted)

    def test_transports(self) -> None:
        """Keep-alive is asked of plain TCP alone: TLS has no socket of its own to ask."""

        class Tls:
            def getHandle(self) -> object:
                return object()

        keep_alive(Tls())
        keep_alive(None)

    def test_lost_before_confirmation(self) -> None:
        """A connection that was never confirmed changes nothing."""
        self.platform.connect(FROM_NODE, REQUEST).leave()
        self.assertEqual(self.events(), [])

    def test_newest_connection_wins(self) -> None:
        """A node that rebooted at once: the end of its old connection does not count."""
        old = self.platform.connect(FROM_NODE, REQUEST + b"\n")
        new = self.platform.connect(FROM_NODE, REQUEST + b"\n")
        old.send(b"\n")
        old.leave()
        self.assertTrue(self.booted)
        new.leave()
        self.assertFalse(self.booted)

    def test_unknown_peer(self) -> None:
        """A peer that is no device is refused."""
        for peer in (Peer("192.168.1.99", False), Peer(None, True, "alice")):
            connection = self.platform.connect(peer, REQUEST + b"\n")
            self.assertTrue(connection.closed)
            self.assertEqual(connection.raw(), b"")
            connection.leave()

    def test_forgotten_meanwhile(self) -> None:
        """A node removed while connected: its end is ignored."""
        connection = self.platform.connect(FROM_NODE, REQUEST + b"\n")
        self.assertTrue(self.booted)
        self.platform.status.forget(NODE.mac)
        self.successResultOf(Deferred.fromCoroutine(self.platform.registry.forget(NODE)))
        connection.leave()
        self.assertEqual(self.events(), ["node node-1 is booted"])

    def test_not_over_a_socket(self) -> None:
        """Over TLS there is no socket to set: that is no error."""

        class Transport:
            def getHandle(self) -> object:
                return object()

        keep_alive(Transport())
