"""REQ_NOTIFY_BOOTUP_STATUS: the permanent connection of a booted node (N-077)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.nodes.status import DISCONNECTED, BootStatus
from walt.server.runtime.slicing import Turnstile
from walt.server.streams.base import Peer, Request, StreamProtocol

# Loss is detected in about 25 s: first probe after 15 s, then every 2 s, 5 times.
KEEPALIVE = (15, 2, 5)
# A node that keeps coming and going would fill the logs of all: so often at once, and then
# once in so many seconds.
MOST_AT_ONCE, EVERY = 20, 5.0
_log = Logger()


class BootNotifications:
    """Which connection of each address is the newest."""

    def __init__(
        self, registry: DeviceRegistry, status: BootStatus, clock: IReactorTime
    ) -> None:
        self.registry = registry
        self.status = status
        self.newest: dict[str, NotifyRequest] = {}
        self.turns = Turnstile(clock)  # hundreds of nodes boot at once
        self._clock = clock
        self._rates: dict[str, tuple[float, float]] = {}  # by address: how many more, and when
        self._told: set[str] = set()  # of whom it was said that they connect too often

    def is_one_too_many(self, ip: str) -> bool:
        """Count a connection of a node; tell whether it is to be refused."""
        now = self._clock.seconds()
        left, then = self._rates.get(ip, (float(MOST_AT_ONCE), now))
        left = min(float(MOST_AT_ONCE), left + (now - then) / EVERY)
        refused = left < 1
        if refused and ip not in self._told:
            _log.warn("{ip} connects too often to tell that it is booted", ip=ip)
            self._told.add(ip)
        elif left == MOST_AT_ONCE:
            self._told.discard(ip)
        self._rates[ip] = (left if refused else left - 1, now)
        return refused

    def request(self, connection: StreamProtocol, peer: Peer) -> Request:
        """Make the request of one connection."""
        return NotifyRequest(self, connection, peer)


class NotifyRequest(Request):
    """`OK`, then the first byte confirms the boot, and the end of the connection ends it."""

    def __init__(
        self, owner: BootNotifications, connection: StreamProtocol, peer: Peer
    ) -> None:
        super().__init__(connection, peer)
        self._owner = owner
        self._confirmed = False

    def started(self) -> None:
        ip = self.peer.ip
        if (
            ip is None or self._owner.registry.by_ip(ip) is None
            or self._owner.is_one_too_many(ip)
        ):
            self.connection.close()
            return
        self._owner.newest[ip] = self
        keep_alive(self.connection.transport)
        self.connection.write(b"OK\n")

    def received(self, data: bytes) -> None:
        self.connection.header_complete()
        ip = self.peer.ip
        if self._confirmed or ip is None or self._owner.newest.get(ip) is not self:
            return
        self._confirmed = True
        self._tell(ip, self._owner.status.booted)

    def lost(self) -> None:
        ip = self.peer.ip
        if ip is None or self._owner.newest.get(ip) is not self:
            return
        del self._owner.newest[ip]
        if self._confirmed:
            self._tell(ip, lambda mac: self._owner.status.down(mac, DISCONNECTED))

    def _tell(self, ip: str, event: Callable[[str], None]) -> None:
        def tell(_: None) -> None:
            device = self._owner.registry.by_ip(ip)
            if device is not None:
                event(device.mac)

        self._owner.turns.passed().addCallback(tell).addErrback(
            lambda failure: _log.failure("a boot that a node tells of", failure)
        )


def keep_alive(transport: Any) -> None:
    """Make TCP notice a peer that vanished, in about 25 s."""
    handle = getattr(transport, "getHandle", lambda: None)()
    # That of TLS is no socket, and nodes do not use TLS.
    if not isinstance(handle, socket.socket) or handle.family != socket.AF_INET:
        return
    idle, interval, probes = KEEPALIVE
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
