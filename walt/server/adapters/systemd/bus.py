"""The server as a client of the system's message bus (D-Bus specification)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_error
from jeepney.low_level import Header
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from walt.common.errors import CommandFailed, Unavailable
from walt.server.runtime.dbus import MessageStream

BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
LONGEST = 1 << 18  # bytes of a message: all properties of a unit are 20 KiB


class SystemBus(MessageStream):
    """A connection that gets the signals of one `name` of the bus, once it `is_up`.

    `on_signal` gets each one, `on_owner` is called when another process has got the name,
    `on_lost` at the end of a connection that was up. Any account of the machine may send us
    signals directly, whatever we have asked for: the bus vouches for their sender alone.
    """

    def __init__(
        self, clock: IReactorTime, name: str, *, on_signal: Callable[[Message], None],
        on_owner: Callable[[], None], on_lost: Callable[[], None],
    ) -> None:
        super().__init__(clock, "systemd", LONGEST)
        self._name, self._owner = name, ""
        self._on_signal, self._on_owner, self._on_lost = on_signal, on_owner, on_lost
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
        """Return when the bus has given us a name, and told who has ours. Raises Unavailable."""
        def late(_: object, seconds: float) -> Failure:
            return Failure(Unavailable(f"the system bus does not answer within {seconds:g} s"))

        await self._greeting.addTimeout(limit, self._clock, onTimeoutCancel=late)
        await self.call(BUS, "Hello", limit=limit)
        await self.listen(
            f"type='signal',sender='{BUS.bus_name}',member='NameOwnerChanged',arg0='{self._name}'",
            limit,
        )
        try:
            self._owner = str((await self.call(
                BUS, "GetNameOwner", "s", (self._name,), limit=limit
            ))[0])
        except CommandFailed as error:
            if "NameHasNoOwner" not in str(error):
                raise

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

    def _wanted(self, header: Header) -> bool:
        if header.message_type is not MessageType.signal:
            return True
        return header.fields.get(HeaderFields.sender) in (BUS.bus_name, self._owner)

    def _told(self, message: Message) -> None:
        fields = message.header.fields
        if fields[HeaderFields.sender] != BUS.bus_name:
            self._on_signal(message)
        elif fields.get(HeaderFields.member) == "NameOwnerChanged":
            name, _, owner = message.body
            if name == self._name and owner != self._owner:
                self._owner = owner
                if owner:
                    self._on_owner()


def leave(bus: SystemBus) -> None:
    """End a connection."""
    transport: Any = bus.transport
    if transport is not None:
        transport.loseConnection()
