from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from walt.server.adapters.postgres.sockets import LibpqSocket


class Watcher:
    """A connection of txpostgres, as its reactor sees it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.called: Deferred[str] = Deferred()
        self.error: Exception | None = None

    def fileno(self) -> int:
        """Return the descriptor of libpq."""
        return self.number

    def doRead(self) -> None:
        """There is input."""
        if self.error is not None:
            raise self.error
        self.called.callback("read")

    def doWrite(self) -> None:
        """There is room."""
        self.called.callback("write")


class SocketTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.lost: list[str] = []
        self.watch = LibpqSocket(reactor, lambda: self.lost.append("lost"))
        self.addCleanup(self.watch.release)

    def pair(self) -> tuple[int, socket.socket]:
        """Return a descriptor as libpq has one, and its other end."""
        ours, other = socket.socketpair()
        self.addCleanup(other.close)
        return ours.detach(), other

    async def test_events(self) -> None:
        """Input and room reach who watches; once removed, it is left alone."""
        number, other = self.pair()
        self.addCleanup(os.close, number)
        watcher = Watcher(number)
        self.watch.addReader(watcher)
        other.send(b"x")
        self.assertEqual(await watcher.called, "read")
        self.watch.removeReader(watcher)
        watcher.called = Deferred()
        self.watch.addWriter(watcher)
        self.assertEqual(await watcher.called, "write")
        self.watch.removeReader(Watcher(number))  # never watched
        self.watch.removeWriter(watcher)
        self.assertNotIn(self.watch, self.reactor.getReaders() + self.reactor.getWriters())

    async def test_number_of_somebody_else(self) -> None:
        """libpq closes its socket, another one gets the number: both are watched rightly."""
        number, _ = self.pair()
        self.watch.addReader(Watcher(number))
        # The next socket of libpq has the same number, as it often happens.
        following, other = self.pair()
        os.dup2(following, number)
        os.close(following)
        self.addCleanup(os.close, number)
        watcher = Watcher(number)
        self.watch.addReader(watcher)
        other.send(b"x")
        self.assertEqual(await watcher.called, "read")
        self.watch.release()
        self.assertNotIn(self.watch, self.reactor.getReaders())
        self.assertRaises(OSError, self.watch.addReader, Watcher(-1))

    async def test_lost(self) -> None:
        """Who finds the connection lost while it is idle loses it for good; other errors show."""
        number, _ = self.pair()
        self.addCleanup(os.close, number)
        watcher = Watcher(number)
        watcher.error = OSError("gone")
        self.watch.addReader(watcher)
        self.watch.doRead()
        self.assertEqual(self.lost, ["lost"])
        watcher.error = KeyError("a bug")
        self.assertRaises(KeyError, self.watch.doRead)
        self.watch.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.lost, ["lost", "lost"])
        self.assertEqual(self.watch.logPrefix(), "database")
