"""Changes of many devices: made in several turns of the reactor, in force at one moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.runtime.slicing import slices

AT_ONCE = 512  # devices made in one turn


async def remade(
    registry: DeviceRegistry, devices: Sequence[Device],
    make: Callable[[Sequence[Device]], Sequence[Device]], clock: IReactorTime,
) -> list[Change]:
    """Return some devices as they are, and what `make` makes of them; true in this turn.

    It is asked again about those that others changed while it was asked about the rest; those
    that are gone are left out.
    """
    made: list[Change] = []
    async for some in slices(clock, devices, AT_ONCE):
        made += map(Change, some, make(some))
    found = [registry.get(change.mac) for change in made]
    if all(device is change.old for device, change in zip(found, made, strict=True)):
        return made
    present = [device for device in found if device is not None]
    return [*map(Change, present, make(present))]
