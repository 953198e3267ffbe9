"""The server as a client of the system's message bus (D-Bus specification)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from jeepney import DBusAddress, Message, new_error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from walt.common.errors import Unavailable
from walt.server.runtime.dbus import MessageStream

BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")


class SystemBus(MessageStream):
    """A connection that gets signals, once it `is_up`.

    `on_signal` gets each one, `on_lost` is called at the end of a connection that was up.
    """

    def __init__(
        self, clock: IReactorTime, *, on_signal: Callable[[Message], None],
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(clock, "systemd")
        self._on_signal, self._on_lost = on_signal, on_lost
        self._greeting: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """Say who we are: the bus compares it with what the kernel says."""
        self._write(b"\0AUTH EXTERNAL %s\r\n" % str(os.geteuid()).encode().hex().encode())

    def _greeted(self, line: bytes) -> bool:
        if not line.startswith(b"OK"):
            self._refuse("it does not let us in")
            return False
        self._write(b"BEGIN\r\n")
        greeting, self._greeting = self._greeting, Deferred()
        greeting.callback(None)
        return True

    async def is_up(self, limit: float) -> None:
        """Return when the bus has given us a name. Raises Unavailable."""
        def late(_: object, seconds: float) -> Failure:
            return Failure(Unavailable(f"the system bus does not answer within {seconds:g} s"))

        await self._greeting.addTimeout(limit, self._clock, onTimeoutCancel=late)
        await self.call(BUS, "Hello", limit=limit)

    async def listen(self, rule: str, limit: float) -> None:
        """Ask for the signals that match a rule. Raises Unavailable, CommandFailed."""
        await self.call(BUS, "AddMatch", "s", (rule,), limit=limit)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what was asked, and tell."""
        super().connectionLost(reason)
        if not self._greeting.called and self._handshake is not None:
            self._greeting.errback(Unavailable("the system bus closed the connection"))
        self._on_lost()

    def _asked(self, message: Message, member: str) -> None:
        self._send(new_error(message, "org.freedesktop.DBus.Error.UnknownMethod"))

    def _told(self, message: Message) -> None:
        self._on_signal(message)


def leave(bus: SystemBus) -> None:
    """End a connection."""
    transport: Any = bus.transport
    if transport is not None:
        transport.loseConnection()
