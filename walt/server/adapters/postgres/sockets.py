"""The sockets of libpq, as the reactor may watch them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import psycopg2
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.server.runtime.reactors import IReactor

_log = Logger()

# What a lost connection looks like, from whoever meets it first: libpq or the socket.
LOST = (psycopg2.OperationalError, psycopg2.InterfaceError, ConnectionClosed, OSError)


@implementer(IReadWriteDescriptor)
class LibpqSocket:
    """What one txpostgres connection takes for its reactor.

    libpq closes and replaces its socket whenever it likes, and the number of the
    old one may belong to somebody else at once; a reactor that is not told of
    it gets its books wrong. So it watches a descriptor of our own of the same
    socket, which lives until we are told to watch another one, or to `release`.
    `on_lost` is called when whoever watches finds the connection lost.
    """

    def __init__(self, reactor: IReactor, on_lost: Callable[[], None]) -> None:
        self._reactor = reactor
        self._on_lost = on_lost
        self._descriptor = -1
        self._reader: Any = None
        self._writer: Any = None
        self.callLater = reactor.callLater

    # -- the reactor of txpostgres ------------------------------------------

    def addReader(self, watcher: Any) -> None:
        """Watch for input of the present socket of a connection or cursor."""
        self._follow(watcher.fileno())
        self._reader = watcher
        self._reactor.addReader(self)

    def addWriter(self, watcher: Any) -> None:
        """Watch for room for output."""
        self._follow(watcher.fileno())
        self._writer = watcher
        self._reactor.addWriter(self)

    def removeReader(self, watcher: Any) -> None:
        """Watch no more, if it is `watcher` that watches."""
        if self._reader is watcher:
            self._reader = None
            self._reactor.removeReader(self)

    def removeWriter(self, watcher: Any) -> None:
        """Watch no more, if it is `watcher` that watches."""
        if self._writer is watcher:
            self._writer = None
            self._reactor.removeWriter(self)

    def _follow(self, number: int) -> None:
        if number < 0:
            raise OSError(errno.EBADF, "the connection has no socket any more")
        if self._descriptor < 0 or not os.path.sameopenfile(number, self._descriptor):
            self.release()
            self._descriptor = os.dup(number)

    def release(self) -> None:
        """Close our descriptor."""
        self._reader = self._writer = None
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            os.close(self._descriptor)
            self._descriptor = -1

    # -- what the reactor calls ------------------------------------------

    def fileno(self) -> int:
        """Return our descriptor."""
        return self._descriptor

    def doRead(self) -> None:
        """There is input."""
        if self._reader is not None:
            self._unless_lost(self._reader.doRead)

    def doWrite(self) -> None:
        """There is room for output."""
        if self._writer is not None:
            self._unless_lost(self._writer.doWrite)

    def _unless_lost(self, action: Callable[[], None]) -> None:
        try:
            action()
        except LOST as error:
            _log.info("a database connection was lost: {error}", error=str(error).strip())
            self._on_lost()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives the descriptor up."""
        self._on_lost()

    def logPrefix(self) -> str:
        """Return the prefix of log lines."""
        return "database"
