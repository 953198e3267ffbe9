"""Boot time-outs and automatic hard reboots (spec server §3.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.settings import BOOT_TIMEOUT, EMULATED_BOOT_TIMEOUT
from walt.server.domain.events import Source
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.status import BootStatus

DEFAULT_RETRIES = 9
AT_ONCE = 256
LOOK_EVERY = 60.0  # seconds, at least, between two looks at all nodes when nothing is due
LATE_BOOT, POWERSAVE = "bootup timeout", "powersave"  # causes of reboots and of ends


@dataclass(slots=True)
class _Boot:
    start: float
    retries: int
    cause: str | None
    tried: int = 0  # hard reboots since the last boot, or since a person asked for one


class BootMonitor:
    """Hard reboots the nodes that do not boot in time.

    The owner calls `check` every few seconds. `late` tells of the nodes that are to be rebooted,
    `begun` of each boot, with its cause; `given_up` gives the MAC of a node that no retry made
    boot, with a sentence, and with None when it boots or is rebooted after all. `emulated`
    tells whether the processor of a node is emulated. A check reboots or gives up `at_once` nodes.
    """

    def __init__(
        self, registry: DeviceRegistry, status: BootStatus, platform: PlatformLog,
        clock: IReactorTime, emulated: Callable[[Device], bool], at_once: int = AT_ONCE,
    ) -> None:
        self._at_once = at_once
        self._registry = registry
        self._status = status
        self._platform = platform
        self._clock = clock
        self._boots: dict[str, _Boot] = {}
        self._given_up: set[str] = set()
        self._next = 0.0  # nothing is late before: a look at all nodes costs their number
        self.late: Source[list[Device]] = Source()
        self.begun: Source[Device, str | None] = Source()
        self.given_up: Source[str, str | None] = Source()
        self.emulated = emulated
        status.changed.observe(self._on_status)
        registry.observe(self._on_devices)

    def _on_devices(self, changes: Iterable[Change]) -> None:
        for old, new in changes:
            if new is not None and new.is_node and (
                old is None or not old.is_node or old.conf != new.conf
            ):
                self._next = 0.0
                return

    def _expect(self, device: Device, boot: _Boot) -> None:
        """Look again when a boot may be late."""
        timeout = self._timeout(self._registry.get(device.mac) or device)
        if timeout is not None and boot.cause != POWERSAVE:
            self._next = min(self._next, boot.start + timeout)

    def _timeout(self, device: Device) -> float | None:
        default = EMULATED_BOOT_TIMEOUT if self.emulated(device) else BOOT_TIMEOUT
        timeout: float | None = device.conf.get("boot.timeout", default)
        return timeout

    def _on_status(self, mac: str, booted: bool, cause: str | None) -> None:
        self._hope(mac)
        device = self._registry.get(mac)
        if not booted and device is not None:
            boot = self._boots[mac] = _Boot(self._clock.seconds(), _retries(device), cause)
            self._expect(device, boot)

    def started(self, device: Device, cause: str | None = None) -> None:
        """A node is about to boot, for a reason if it is known: its time counts from now."""
        self.begun.tell(device, cause)
        boot = self._boots.get(device.mac)
        if boot is None:
            boot = _Boot(self._clock.seconds(), _retries(device), None)
            self._boots[device.mac] = boot
        else:
            boot.start = self._clock.seconds()
        self._expect(device, boot)

    def reset_retries(self, device: Device) -> None:
        """A person asked for a reboot: all automatic retries are available again."""
        boot = self._boots.get(device.mac)
        if boot is not None:
            boot.retries = _retries(device)
            boot.tried = 0
            self._expect(device, boot)
        self._hope(device.mac)

    def _hope(self, mac: str) -> None:
        if mac in self._given_up:
            self._given_up.discard(mac)
            self.given_up.tell(mac, None)

    def forget(self, mac: str) -> None:
        """A device was removed."""
        self._given_up.discard(mac)
        self._boots.pop(mac, None)

    def adjust_retries(self, device: Device, difference: int) -> None:
        """The setting `boot.retries` changed by `difference`."""
        boot = self._boots.get(device.mac)
        if boot is not None:
            boot.retries = max(0, boot.retries + difference)
            self._expect(device, boot)

    def check(self) -> None:
        """Find the nodes that are late and reboot them; of thousands, some at a time."""
        now = self._clock.seconds()
        if now < self._next:
            return
        self._next = now + LOOK_EVERY
        late: list[Device] = []
        given_up = 0
        for device in self._registry.nodes():
            if self._status.is_booted(device.mac):
                continue
            if len(late) + given_up >= self._at_once:
                self._next = now
                break
            boot = self._boots.get(device.mac)
            if boot is None:
                boot = self._boots[device.mac] = _Boot(now, _retries(device), None)
            timeout = self._timeout(device)
            if timeout is None or boot.cause == POWERSAVE:
                continue
            if now - boot.start < timeout:
                self._next = min(self._next, boot.start + timeout)
            elif boot.retries <= 0:
                given_up += self._give_up(device, boot, timeout)
            else:
                boot.retries -= 1
                boot.tried += 1
                boot.start = now
                self._next = min(self._next, now + timeout)
                left = f"{boot.retries} retries left" if boot.retries else "last try"
                self._platform.write(
                    "nodes",
                    f"{device.name}: boot timeout reached, trying hard-reboot ({left}).",
                )
                late.append(device)
        if late:
            self.late.tell(late)

    def _give_up(self, device: Device, boot: _Boot, timeout: float) -> bool:
        """Leave a node alone that was restarted often enough; tell whether that is news."""
        if not boot.tried or device.mac in self._given_up:
            return False
        self._given_up.add(device.mac)
        times = "once" if boot.tried == 1 else f"{boot.tried} times"
        self.given_up.tell(
            device.mac,
            f"it was not booted within {timeout:g} s although it was restarted {times}; it is"
            " left alone now",
        )
        return True


def _retries(device: Device) -> int:
    return int(device.conf.get("boot.retries", DEFAULT_RETRIES))
