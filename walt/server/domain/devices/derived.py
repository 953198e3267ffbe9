"""What derives from devices, changed by those that changed.

A device is a frozen value that the registry replaces when it changes: which devices changed is
told by comparing objects, 10,000 of them in a millisecond. What derives from each is made anew
for those alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from walt.server.domain.devices.model import Device

_K = TypeVar("_K", bound=Any)  # what can be ordered
_V = TypeVar("_V")


class Change(NamedTuple):
    """A device as it was (None: not there), and as it is (None: gone)."""

    old: Device | None
    new: Device | None

    @property
    def mac(self) -> str:
        """Its MAC."""
        device = self.new or self.old
        assert device is not None
        return device.mac


class Followed:
    """The devices that were there at the last look."""

    def __init__(self) -> None:
        self._seen: dict[str, Device] = {}
        self._noted: dict[str, Device | None] = {}  # by MAC, what changed since then

    def note(self, changes: Iterable[Change]) -> None:
        """Take changes, for the next `noted`: thousands of devices need not be compared then."""
        self._noted.update((change.mac, change.new) for change in changes)

    def noted(self) -> list[Change]:
        """Return what changed since the last look, as far as it was told."""
        noted, self._noted = self._noted, {}
        changes = [
            Change(self._seen.get(mac), device) for mac, device in noted.items()
            if self._seen.get(mac) is not device
        ]
        for old, new in changes:
            if new is not None:
                self._seen[new.mac] = new
            elif old is not None:
                del self._seen[old.mac]
        return sorted(changes, key=lambda change: change.new is not None)

    def look(self, devices: Iterable[Device]) -> list[Change]:
        """Return what changed since the last look; those that are gone come first."""
        seen, self._seen = self._seen, {device.mac: device for device in devices}
        self._noted = {}
        present = self._seen
        changes = [Change(device, None) for mac, device in seen.items() if mac not in present]
        changes += [
            Change(seen.get(mac), device) for mac, device in present.items()
            if seen.get(mac) is not device
        ]
        return changes


class Ordered(Generic[_K, _V]):
    """Values in the order of their keys, which are different ones."""

    def __init__(self) -> None:
        self._keys: list[_K] = []
        self._values: list[_V] = []

    def __iter__(self) -> Iterator[_V]:
        return iter(self._values)

    @property
    def keys(self) -> Sequence[_K]:
        """The keys, in their order."""
        return self._keys

    def add(self, key: _K, value: _V) -> None:
        """Have a value for a key, in place of a former one."""
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            self._values[place] = value
        else:
            self._keys.insert(place, key)
            self._values.insert(place, value)

    def drop(self, key: _K) -> None:
        """Have no value for a key."""
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            del self._keys[place], self._values[place]
