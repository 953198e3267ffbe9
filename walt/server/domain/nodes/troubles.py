"""Why nodes cannot boot: what the server cannot give them, and machines that do not start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime

from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.runtime.slicing import AT_ONCE

LASTING = 60.0  # seconds of what the server tries again by itself: then nobody waits any more
LASTING_OF_MACHINES = 5.0  # a machine starts anew in the same way until its settings change


class Lines(Protocol):
    """The log of the platform."""

    def write(self, topic: str, line: str, *, error: bool = False) -> None:
        """Add a line to the stream `platform.<topic>`."""


class _Machine(NamedTuple):
    reason: str
    since: float
    cause: tuple[object, ...]  # what a change of makes the trouble one of the past


def _cause(device: Device) -> tuple[object, ...]:
    return device.image, tuple(sorted(device.conf.items()))


class BootTroubles:
    """By MAC, why nodes cannot boot at present. Changes are told to `platform`.

    `clock` gives seconds and callLater.
    """

    def __init__(self, clock: IReactorTime, registry: DeviceRegistry, platform: Lines) -> None:
        self._clock = clock
        self._registry = registry
        self._platform = platform
        self._files: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._machines: dict[str, _Machine] = {}

    def of_files(self, found: Mapping[str, str]) -> None:
        """Take what the server cannot give to nodes at present."""
        before, self._files = self._files, dict(found)
        now = self._clock.seconds()
        self._since = {mac: self._since.get(mac, now) for mac in found}
        self._tell_all([
            mac for mac in found.keys() | before.keys() if found.get(mac) != before.get(mac)
        ])

    def _tell_all(self, macs: Sequence[str]) -> None:
        """Tell of the files of some nodes; thousands may have the same image."""
        for mac in macs[:AT_ONCE]:
            self._tell(mac, self._files.get(mac))
        if len(macs) > AT_ONCE:
            self._clock.callLater(0, self._tell_all, macs[AT_ONCE:])

    def of_machine(self, mac: str, reason: str | None) -> None:
        """Take why the machine of a node does not start; None: it does."""
        device = self._registry.get(mac)
        before = self._machines.pop(mac, None)
        if device is None:
            return
        if reason is None:
            if before is not None and mac not in self._files:
                self._tell(mac, None)
            return
        known = before is not None and before.cause == _cause(device)
        since = before.since if before is not None and known else self._clock.seconds()
        self._machines[mac] = _Machine(reason, since, _cause(device))
        if before is None or not known or before.reason != reason:
            self._tell(mac, reason)

    def _tell(self, mac: str, reason: str | None) -> None:
        device = self._registry.get(mac)
        if device is None:
            return
        if reason is None:
            self._platform.write("nodes", f"{device.name} can boot again.")
        else:
            self._platform.write("nodes", f"{device.name} cannot boot: {reason}", error=True)

    def _valid_machines(self) -> dict[str, _Machine]:
        for mac in list(self._machines):
            device = self._registry.get(mac)
            if device is None or _cause(device) != self._machines[mac].cause:
                del self._machines[mac]
        return self._machines

    def current(self) -> dict[str, str]:
        """Return the troubles of now."""
        machines = {mac: machine.reason for mac, machine in self._valid_machines().items()}
        return {**machines, **self._files}

    def lasting(self) -> dict[str, str]:
        """Return those that do not go by themselves, as far as can be told."""
        now = self._clock.seconds()
        found = {
            mac: machine.reason for mac, machine in self._valid_machines().items()
            if now - machine.since >= LASTING_OF_MACHINES
        }
        found.update(
            (mac, reason) for mac, reason in self._files.items()
            if now - self._since[mac] >= LASTING
        )
        return found
