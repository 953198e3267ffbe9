"""What the device registry needs from the outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from zope.interface import Interface

from walt.server.domain.devices.changes import Change
from walt.server.domain.devices.model import Device


class IDeviceStore(Interface):
    """Where devices are kept between two runs. All methods are coroutines."""

    async def load(take: Callable[[Sequence[Device]], object]) -> None:
        """Give every device to `take`, some at a time: of thousands, in several turns."""

    async def save(devices: Sequence[Device], changes: Iterable[Change] = ()) -> None:
        """Insert or replace these devices, and record what changes by it, all or none.

        `changes` are made while they are asked for: thousands are, in several turns.
        """

    async def forget(
        macs: Sequence[str], keep_logs: Mapping[str, str], changes: Iterable[Change] = ()
    ) -> None:
        """Delete devices with their logs and everything that refers to them, and record it.

        Logs of the MACs in `keep_logs` stay: they belong to the name that it tells.
        """

    async def load_boot_states() -> Mapping[str, bool]:
        """Return, by MAC, whether the node was booted when the server stopped."""

    async def save_boot_states(states: Mapping[str, bool]) -> None:
        """Record which nodes are booted (design D20)."""
