"""Values that derive from one device each, kept as long as the device is the same.

A device is a frozen value that the registry replaces when it changes: who derives
something of thousands of devices derives it anew for those that were replaced, and
passes over the others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from walt.server.domain.devices.model import Device

_T = TypeVar("_T")
_C = TypeVar("_C", bound=Hashable)


class Derived(Generic[_C, _T]):
    """Keep the value of `derive` for each device, and each `context` that it depends on besides.

    `derive` must depend on nothing else.
    """

    def __init__(self, derive: Callable[[Device, _C], _T]) -> None:
        self._derive = derive
        self._kept: dict[str, tuple[Device, _C, _T]] = {}

    def of(self, devices: Iterable[Device], contexts: Iterable[_C]) -> list[_T]:
        """Return the values of these devices, in their order; those of others are forgotten.

        `contexts` has an element for each of them, at least.
        """
        kept, macs, values = self._kept, [], []
        for device, context in zip(devices, contexts):  # noqa: B905  # the same one for all may repeat
            mac = device.mac
            entry = kept.get(mac)
            if entry is None or entry[0] is not device or (
                entry[1] is not context and entry[1] != context
            ):
                entry = kept[mac] = device, context, self._derive(device, context)
            macs.append(mac)
            values.append(entry[2])
        if len(kept) > len(macs):
            for mac in kept.keys() - set(macs):
                del kept[mac]
        return values
