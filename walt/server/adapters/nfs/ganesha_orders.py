"""Orders to ganesha, which is its D-Bus interface, and whether it takes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jeepney import DBusAddress
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from walt.common.errors import Unavailable
from walt.server.adapters.nfs.bus import BusConnection
from walt.server.adapters.nfs.exports import LINKS_ID
from walt.server.adapters.nfs.ganesha_config import ALL
from walt.server.runtime.dbus import Gone
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.waiting import Waiters

_log = Logger()

# The interface is documented in ganesha's sources, doc/dbus and src/dbus.
MANAGER = DBusAddress(
    "/org/ganesha/nfsd/ExportMgr", "org.ganesha.nfsd", "org.ganesha.nfsd.exportmgr"
)
ORDER_LIMIT = 10.0  # seconds for one order, which takes some milliseconds
ORDER_EACH = 0.005  # more for each export: with thousands, answers on a busy machine are late
START_LIMIT = 30.0  # seconds until it takes orders, with few exports
# It looks each word of its configuration up in a list of all words: 4,000 exports are read in
# 8 to 13 s, 10,000 in 120 to 300 s.
START_SQUARED = 10.0  # seconds for 1,000 exports, times the square of their thousands
# It complains about a keytab and a UDP port that it does not need here.
HARMLESS = ("krb5", "NFS V4 on UDP")


class Orders:
    """What ganesha, which connects to `socket`, is told and asked.

    `count` returns how many exports it has to have, `on_up` is called when it begins to take
    orders. Those fail with Gone when it has ended, with Unavailable when it does not answer in
    time, with CommandFailed when it refuses.
    """

    def __init__(
        self, reactor: IReactor, socket: Path, count: Callable[[], int],
        on_up: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._socket = socket
        self._count, self._on_up = count, on_up
        self._port: IListeningPort | None = None
        self._bus: BusConnection | None = None
        self._initialized = False
        self._complaint = ""  # the last one since it has started
        self._waiting: Waiters[None] = Waiters()

    @property
    def start_limit(self) -> float:
        """Return the seconds within which it has to start with the present exports."""
        return START_LIMIT + START_SQUARED * (self._count() / 1000) ** 2

    # -- life ---------------------------------------------------------------

    def listen(self) -> None:
        """Be the bus that it connects to."""
        self._socket.unlink(missing_ok=True)
        self._port = self._reactor.listenUNIX(
            str(self._socket), _Bus(self._reactor, self._on_connected, self._on_lost), mode=0o600
        )

    async def stop(self) -> None:
        """Be it no more."""
        if self._port is not None:
            port, self._port = self._port, None
            await maybeDeferred(port.stopListening)

    def begins(self) -> None:
        """Take that a new process begins: it takes no orders yet."""
        self._initialized = False

    def line(self, line: str) -> None:
        """Take a line that it has logged."""
        if "NFS SERVER INITIALIZED" in line:
            self._initialized, self._complaint = True, ""
            self._check_up()
        elif any(word in line for word in HARMLESS):
            return
        elif ":CRIT :" in line or ":FATAL :" in line or ":MAJ :" in line:
            _log.info("ganesha: {line}", line=line)
            self._complaint = f"({line.rpartition(' :')[2]})"

    def until_up(self) -> Deferred[None]:
        """Fire when it takes orders; fails with Unavailable."""
        if self._bus is not None and self._initialized:
            return succeed(None)
        waiting = self._waiting.wait()

        def late(_: object, limit: float) -> None:
            raise Unavailable(f"it did not start within {limit:.0f} s {self._complaint}".strip())

        return waiting.addTimeout(self.start_limit, self._reactor, onTimeoutCancel=late)

    def _on_connected(self, bus: BusConnection) -> None:
        self._bus = bus
        self._check_up()

    def _on_lost(self, bus: BusConnection) -> None:
        if self._bus is bus:
            self._bus = None

    def _check_up(self) -> None:
        if self._bus is not None and self._initialized:
            self._waiting.release(None)
            self._on_up()

    # -- orders -------------------------------------------------------------

    async def exported(self) -> set[int]:
        """Return the numbers of what it exports, but for the links; with thousands, at length."""
        shown = (await self.give("ShowExports"))[1]
        return {int(export[0]) for export in shown} - {0, LINKS_ID}

    async def export(self, path: Path) -> tuple[Any, ...]:
        """Have it export what a file tells, new or not; return what it says of it."""
        return await self.give("UpdateExport", "ss", (str(path), ALL))

    async def remove(self, number: int) -> None:
        """Have it not export something any more."""
        await self.give("RemoveExport", "q", (number,))

    async def try_one(self) -> None:
        """Give an order that changes nothing."""
        await self.give("DisplayExport", "q", (LINKS_ID,))

    def give(
        self, member: str, signature: str | None = None, values: tuple[Any, ...] = ()
    ) -> Deferred[tuple[Any, ...]]:
        """Give an order of the interface; fires with its answer."""
        if self._bus is None:
            raise Gone("it ended before it answered")
        limit = ORDER_LIMIT + ORDER_EACH * self._count()
        return self._bus.call(MANAGER, member, signature, values, limit=limit)


class _Bus(Factory):
    noisy = False

    def __init__(
        self, reactor: IReactor, on_ready: Callable[[BusConnection], None],
        on_lost: Callable[[BusConnection], None],
    ) -> None:
        self._reactor, self._on_ready, self._on_lost = reactor, on_ready, on_lost

    def buildProtocol(self, address: UNIXAddress | None) -> BusConnection:  # type: ignore[override]
        return BusConnection(
            self._reactor, os.geteuid(), on_ready=self._on_ready, on_lost=self._on_lost
        )
