"""Which nodes are booted, and who waits for them (spec server §3.6, §3.9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from walt.server.domain.devices.interfaces import IDeviceStore
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.events import Source
from walt.server.domain.logs.lines import PlatformLog
from walt.server.runtime.coroutines import insist, spawn

# Seconds in which a node told to reboot may still come back to a restarted server: no boot is
# that short.
RECONNECTION = 5.0
AT_ONCE = 64  # nodes that go down in one turn of the reactor
DISCONNECTED = "cause: unknown, note: server-detected disconnection"


class _Waiter:
    def __init__(
        self, remaining: set[str], progress: Callable[[Collection[str]], None]
    ) -> None:
        self.remaining = remaining
        self.progress = progress
        self.done: Deferred[None] = Deferred()


class BootStatus:
    """The booted state of each node, by MAC.

    States survive a restart of the server (design D20): a node that was
    booted stays so until `grace` seconds are over without a new connection. `changed` tells
    of each change: MAC, booted, cause; `image_content` returns a sentence about the image of a
    node, for the log.
    """

    def __init__(
        self, registry: DeviceRegistry, store: IDeviceStore, platform: PlatformLog,
        clock: IReactorTime, grace: float,
        image_content: Callable[[Device], str] = lambda device: "",
    ) -> None:
        self._registry = registry
        self._store = store
        self._platform = platform
        self._clock = clock
        self._grace = grace
        self._booted: set[str] = set()
        self._unconfirmed: set[str] = set()
        self._leaving: dict[str, float] = {}  # nodes that went down unconfirmed, and when
        self._boots: Counter[str] = Counter()
        self._waiters: list[_Waiter] = []
        self._stopped = False
        self._unsaved: set[str] = set()  # MACs of nodes whose state is to be recorded
        self._saving = False
        self._image_content = image_content
        self.changed: Source[str, bool, str | None] = Source()

    async def load(self) -> None:
        """Take over the states of the previous run."""
        for mac, booted in (await self._store.load_boot_states()).items():
            device = self._registry.get(mac)
            if booted and device is not None and device.is_node and not device.virtual:
                self._booted.add(mac)
                self._unconfirmed.add(mac)
        if self._unconfirmed:
            self._clock.callLater(self._grace, self._end_of_grace)

    def _end_of_grace(self) -> None:
        for _ in range(min(AT_ONCE, len(self._unconfirmed))):
            self.down(self._unconfirmed.pop(), DISCONNECTED)
        if self._unconfirmed:
            self._clock.callLater(0, self._end_of_grace)

    @property
    def count(self) -> int:
        """How many nodes are booted."""
        return len(self._booted)

    def is_booted(self, mac: str) -> bool:
        """Tell whether a node is booted."""
        return mac in self._booted

    def boots(self, mac: str) -> int:
        """Return how many ends of a boot this node confirmed to this server."""
        return self._boots[mac]

    def booted(self, mac: str) -> None:
        """A node confirmed the end of its boot."""
        left = self._leaving.pop(mac, None)
        if left is not None and self._clock.seconds() - left < RECONNECTION:
            return  # the system that is going down found the restarted server
        self._unconfirmed.discard(mac)
        self._boots[mac] += 1
        device = self._registry.get(mac)
        if device is None or not device.is_node or mac in self._booted or self._stopped:
            return
        self._booted.add(mac)
        self._platform.write("nodes", f"node {device.name} is booted")
        content = self._image_content(device)
        if content:
            # An image may change under its name: this tells later what the node ran.
            self._platform.write("images", f"node {device.name} booted {content}")
        self._changed(mac, True, None)
        for waiter in list(self._waiters):
            if mac in waiter.remaining:
                waiter.remaining.discard(mac)
                self._advance(waiter)

    def down(self, mac: str, details: str, cause: str | None = None) -> None:
        """A node went down; `details` is the text between parentheses of the log line."""
        if mac in self._unconfirmed:
            self._leaving[mac] = self._clock.seconds()
        self._unconfirmed.discard(mac)
        if mac not in self._booted:
            return
        self._booted.discard(mac)
        device = self._registry.get(mac)
        if device is None:
            return
        self._platform.write("nodes", f"node {device.name} is down ({details})")
        self._changed(mac, False, cause)

    def forget(self, mac: str) -> None:
        """A device was removed: nobody waits for it any more."""
        self._boots.pop(mac, None)
        self._leaving.pop(mac, None)
        self._booted.discard(mac)
        self._unconfirmed.discard(mac)
        for waiter in list(self._waiters):
            if mac in waiter.remaining:
                waiter.remaining.discard(mac)
                self._advance(waiter)

    async def let_go(self) -> None:
        """The server stops for good: its nodes lose it and reboot, so none is booted.

        Nothing that nodes say later counts.
        """
        self._stopped = True
        states = dict.fromkeys(self._booted | self._unsaved, False)
        self._booted.clear()
        self._unconfirmed.clear()
        if states:
            await self._store.save_boot_states(states)

    def _changed(self, mac: str, booted: bool, cause: str | None) -> None:
        self._unsaved.add(mac)
        if not self._saving:
            self._saving = True
            spawn(self._save_all(), "recording boot states")
        self.changed.tell(mac, booted, cause)

    async def _save_all(self) -> None:
        """Record what changed, together: hundreds of nodes boot at once."""
        try:
            while self._unsaved:
                macs, self._unsaved = self._unsaved, set()
                await insist(self._clock, partial(self._save, macs), "recording boot states")
        finally:
            self._saving = False

    async def _save(self, macs: Collection[str]) -> None:
        await self._store.save_boot_states({mac: mac in self._booted for mac in macs})

    async def wait(
        self, macs: Collection[str], progress: Callable[[Collection[str]], None]
    ) -> None:
        """Return when all these nodes are booted (or gone).

        `progress` gets the MACs still missing, first and at each arrival.
        """
        waiter = _Waiter({mac for mac in macs if mac not in self._booted}, progress)
        if not waiter.remaining:
            return
        self._waiters.append(waiter)
        progress(waiter.remaining)
        try:
            await waiter.done
        finally:
            self._waiters.remove(waiter)

    def _advance(self, waiter: _Waiter) -> None:
        if waiter.remaining:
            waiter.progress(waiter.remaining)
        elif not waiter.done.called:
            waiter.done.callback(None)
