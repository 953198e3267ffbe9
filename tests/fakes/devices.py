"""Fakes of the interfaces of the devices domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walt.server.domain.devices.changes import Change, IChanges, Recorded
from walt.server.domain.devices.interfaces import IDeviceStore
from walt.server.domain.devices.model import Device


@implementer(IChanges)
class FakeChanges:
    """What a fake store of devices recorded, a second apart from `begin` on."""

    def __init__(self, store: FakeDeviceStore, begin: float = 1000.0) -> None:
        self._store = store
        self._begin = begin

    async def since(self, moment: float, after: int | None, count: int) -> Sequence[Recorded]:
        """Return changes since a moment."""
        found = [
            Recorded(number, self._begin + number, change)
            for number, change in enumerate(self._store.changes, 1)
        ]
        return [
            one for one in found
            if (one.moment >= moment if after is None else one.number > after)
        ][:count]


@implementer(IDeviceStore)
class FakeDeviceStore:
    """Devices in a dict; `gate` holds the next writing back, `errors` are raised by them.

    `refuses` tells which devices and changes are not taken, as a rule of a database does.
    """

    def __init__(self, *devices: Device) -> None:
        self.devices = {device.mac: device for device in devices}
        self.states: dict[str, bool] = {}
        self.changes: list[Change] = []
        self.writes: list[list[str]] = []
        self.gate: Deferred[None] | None = None
        self.errors: list[Exception] = []
        self.refuses: Callable[[Sequence[Device], Sequence[Change]], bool] = (
            lambda devices, changes: False
        )

    async def _write(self, macs: Sequence[str]) -> None:
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate
        if self.errors:
            raise self.errors.pop(0)
        self.writes.append(list(macs))

    def _record(self, changes: Sequence[Change]) -> None:
        known = {change.key for change in self.changes}
        self.changes += [change for change in changes if change.key not in known]

    async def load(self, take: Callable[[Sequence[Device]], object]) -> None:
        """Give every device to `take`, two at a time."""
        devices = list(self.devices.values())
        for start in range(0, len(devices), 2):
            take(devices[start:start + 2])

    async def save(self, devices: Sequence[Device], changes: Iterable[Change] = ()) -> None:
        """Insert or replace devices."""
        changes = list(changes)
        await self._write([device.mac for device in devices])
        if self.refuses(devices, changes):
            raise ValueError("refused")
        self.devices.update((device.mac, device) for device in devices)
        self._record(changes)

    async def forget(
        self, macs: Sequence[str], keep_logs: Mapping[str, str], changes: Iterable[Change] = ()
    ) -> None:
        """Delete devices."""
        changes = list(changes)
        await self._write(macs)
        if self.refuses([], changes):
            raise ValueError("refused")
        for mac in macs:
            self.devices.pop(mac, None)
            self.states.pop(mac, None)
        self._record(changes)

    async def load_boot_states(self) -> Mapping[str, bool]:
        """Return the recorded states."""
        return dict(self.states)

    async def save_boot_states(self, states: Mapping[str, bool]) -> None:
        """Record states of known devices."""
        await self._write(list(states))
        self.states.update((mac, state) for mac, state in states.items() if mac in self.devices)
