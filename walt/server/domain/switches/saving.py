"""Power saving: free nodes that nobody uses are switched off (spec server §4.11)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from walt.common.sentences import subject
from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.interfaces import IPowerSaving
from walt.server.domain.nodes.monitor import BootMonitor
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.requester import IRequester
from walt.server.domain.switches.exploration import Exploration
from walt.server.domain.switches.power import POWERSAVE, SwitchPower
from walt.server.runtime.coroutines import spawn, unbroken

IDLE = 7200.0  # seconds that a free node stays powered without any use
AT_ONCE = 50  # nodes switched off by one check


@implementer(IPowerSaving)
class PowerSaving:
    """Timers of free nodes, and their way back.

    A timer starts anew when a node becomes free, is rebooted, woken up or powered again, and at
    the end of a reservation.
    """

    def __init__(
        self, registry: DeviceRegistry, power: SwitchPower, exploration: Exploration,
        status: BootStatus, monitor: BootMonitor, reservations: Reservations,
        platform: PlatformLog, clock: IReactorTime, idle: float = IDLE,
    ) -> None:
        self._registry = registry
        self._power = power
        self._exploration = exploration
        self._status = status
        self._monitor = monitor
        self._reservations = reservations
        self._platform = platform
        self._clock = clock
        self._idle = idle
        self._since: dict[str, float] = {}
        self._working = False

    def start(self) -> None:
        """Begin with the nodes that are free now."""
        self._changed([Change(None, node) for node in self._registry.nodes()])
        self._registry.observe(self._changed)
        self._status.changed.observe(self._on_status)

    def _changed(self, changes: Iterable[Change]) -> None:
        now = self._clock.seconds()
        for old, node in changes:
            if node is None:
                self._since.pop(old.mac if old is not None else "", None)
            elif old is None or _kind(old) != _kind(node):
                if not node.is_node or node.virtual or not node.boots_default:
                    self._since.pop(node.mac, None)
                else:
                    self._since.setdefault(node.mac, now)

    def used(self, macs: Iterable[str]) -> None:
        """Begin to count anew for nodes that somebody uses."""
        for mac in macs:
            if mac in self._since:
                self._since[mac] = self._clock.seconds()

    async def check(self) -> None:
        """Switch off the nodes whose time is over."""
        if self._working or self._idle <= 0:
            return
        self._working = True
        try:
            reserved = self._reservations
            self.used([mac for mac in list(reserved.macs()) if reserved.get(mac) is not None])
            now = self._clock.seconds()
            due = [mac for mac, since in self._since.items() if now - since >= self._idle]
            able = []
            for mac in due:
                if self._power.is_off(mac) is None and self._power.refusal(mac) is None:
                    able.append(mac)
                else:
                    self._since[mac] = now
            await self._switch_off(able[:AT_ONCE])
        finally:
            self._working = False

    async def _switch_off(self, macs: Collection[str]) -> None:
        if not macs:
            return
        errors = await self._power.off(macs, POWERSAVE)
        back = []
        for mac in macs:
            node = self._registry.get(mac)
            name = node.name if node is not None else mac
            if mac in errors:
                self._platform.write(
                    "powersave.error", f"{name} could not be powered off: {errors[mac]}",
                    error=True,
                )
            elif node is None or not node.boots_default:
                back.append(mac)  # somebody took it meanwhile
            else:
                self._status.down(mac, f"cause: {POWERSAVE}, method: PoE", POWERSAVE)
            self.used([mac])
        if back:
            await self._power.on(back)

    @unbroken
    async def wake(self, nodes: Iterable[Device], requester: IRequester | None) -> None:
        """Power nodes that were switched off to save power; they boot."""
        asleep = [node for node in nodes if self._power.is_off(node.mac) == POWERSAVE]
        if not asleep:
            return
        names = [node.name for node in asleep]
        if requester is not None:
            requester.stdout(f"{subject(names)}: powered off to save power, powered on again now.")
        errors = await self._power.on([node.mac for node in asleep])
        for node in asleep:
            if node.mac in errors:
                text = f"{node.name} could not be powered on: {errors[node.mac]}"
                self._platform.write("powersave.error", text, error=True)
                if requester is not None:
                    requester.stderr(text)
                continue
            self.used([node.mac])
            self._monitor.started(node, "woken up")

    async def let_go(self, device: Device, requester: IRequester | None) -> None:
        """A device will be forgotten: what was switched off of it is powered again."""
        if device.is_node:
            await self.wake([device], requester)
        elif device.type == "switch":
            for name, error in (await self._power.restore([device.mac])).items():
                if requester is not None and error:
                    requester.stderr(f"{name}: some ports could not be powered on again: {error}")
                elif requester is not None:
                    requester.stdout(f"{name}: ports that were powered off are on again.")

    def _on_status(self, mac: str, booted: bool, cause: str | None) -> None:
        if not booted or self._power.is_off(mac) is None:
            return
        # It boots although its port is off: it was moved.
        self.used([mac])
        spawn(self._moved(mac), "powering the former port of a node that was moved")

    async def _moved(self, mac: str) -> None:
        await self._power.on([mac])
        await self._exploration.forget_place(mac)


def _kind(device: Device) -> tuple[object, ...]:
    """Return what decides whether a device is a free node."""
    return device.type, device.virtual, device.image, device.model
