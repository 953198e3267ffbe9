"""Power of the ports that feed nodes (spec server §6.4): never cut on a guess.

Before a port is switched off its switch is read again, and everything that it says of the port
must agree: this node is there, alone, fed by this port. What is switched off is recorded first:
whatever happens then, the port is powered again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from twisted.internet.defer import Deferred, DeferredLock, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import WaltError
from walt.common.sentences import enumerate_names
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.interfaces import INodePower
from walt.server.domain.switches import topology
from walt.server.domain.switches.exploration import Exploration, target
from walt.server.domain.switches.interfaces import ISwitches, ISwitchStore, PortOff
from walt.server.domain.switches.poe import PowerPort
from walt.server.domain.switches.survey import Survey
from walt.server.runtime.coroutines import shielded

_log = Logger()

NO_PLACE = "unknown LLDP network position"
FORBIDDEN = "forbidden on switch"
HARD_REBOOT, POWERSAVE = "hard-reboot", "powersave"
LONGEST_CUT = 30.0  # seconds after which a port cut for a reboot is powered again, whatever waits

Key = tuple[str, int]


class _Cut(NamedTuple):
    """A node at a port that its switch may be asked to switch off."""

    node: str
    port: int
    seen_by_switch: bool


class _Off:
    """Ports that are recorded off, by port and by their node: each of thousands is asked for."""

    def __init__(self, records: Iterable[PortOff] = ()) -> None:
        self.revision = 0  # another one since something changed
        self.by_port: dict[Key, PortOff] = {}
        self.of_node: dict[str, dict[Key, PortOff]] = {}
        for record in records:
            self.put(record)

    def put(self, record: PortOff) -> None:
        """Add or replace the record of a port."""
        self.drop(record)
        self.revision += 1
        key = record.switch, record.port
        self.by_port[key] = record
        if record.node is not None:
            self.of_node.setdefault(record.node, {})[key] = record

    def drop(self, record: PortOff) -> None:
        """Have none of that port."""
        key = record.switch, record.port
        self.revision += 1
        former = self.by_port.pop(key, None)
        if former is None or former.node is None:
            return
        others = self.of_node[former.node]
        del others[key]
        if not others:
            del self.of_node[former.node]


@implementer(INodePower)
class SwitchPower:
    """Switches ports, and remembers which of them the server itself switched off."""

    def __init__(
        self, registry: DeviceRegistry, exploration: Exploration, switches: ISwitches,
        store: ISwitchStore, platform: PlatformLog, clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._exploration = exploration
        self._switches = switches
        self._store = store
        self._platform = platform
        self._clock = clock
        self._off = _Off()
        self._since: dict[Key, float] = {}  # absent: to be powered again
        self._locks: dict[str, DeferredLock] = {}

    # -- what is known ---------------------------------------------------

    def all_off(self) -> Collection[str]:
        """Return the MACs of nodes whose ports are recorded off; see INodePower."""
        return set(self._off.of_node)

    @property
    def revision(self) -> int:
        """Another number since ports were switched off or on."""
        return self._off.revision

    def is_off(self, mac: str) -> str | None:
        """Return why the port of a node is recorded off, None when it is on."""
        return next((record.reason for record in self._off.of_node.get(mac, {}).values()), None)

    def port_off(self, switch: str, port: int) -> str | None:
        """Return why a port is recorded off, None when it is not."""
        found = self._off.by_port.get((switch, port))
        return found.reason if found is not None else None

    def refusal(self, mac: str) -> str | None:
        """Return why the power of a node cannot be switched, as far as is known, else None."""
        place = self._exploration.place(mac)
        if place is None:
            return NO_PLACE
        switch, port, _ = place
        if not switch.conf.get("poe.reboots") or not switch.conf.get("lldp.explore"):
            return f"{FORBIDDEN} {switch.name}"
        power = self._exploration.power_port(switch.mac, port)
        survey = self._exploration.surveys.get(switch.mac)
        if power is None and survey is not None:
            return _unproved(survey, port, self._where(switch, port))
        return None

    def state(self, switch: Device, port: int) -> str:
        """Return on, off or unavailable: the power of a port, at the last look."""
        power = self._exploration.power_port(switch.mac, port)
        if power is None or not switch.conf.get("poe.reboots"):
            return "unavailable"
        if self.port_off(switch.mac, port) is not None:
            return "off"
        return "on" if power.is_on else "off"

    def _where(self, switch: Device, port: int) -> str:
        return f"{switch.name} port {self._exploration.port_name(switch.mac, port)}"

    # -- off -------------------------------------------------------------

    async def off(self, macs: Collection[str], reason: str) -> Mapping[str, str]:
        """Switch nodes off; return, by MAC, the reasons of the failures."""
        errors: dict[str, str] = {}
        by_switch: dict[str, list[_Cut]] = {}
        for mac in sorted(macs):
            refusal = self.refusal(mac)
            place = self._exploration.place(mac)
            if refusal is not None or place is None:
                errors[mac] = refusal or NO_PLACE
                continue
            switch, port, link = place
            by_switch.setdefault(switch.mac, []).append(
                _Cut(mac, port, link.evidence != topology.REPORT)
            )
        # What was begun with a port is brought to its end, whoever waits.
        found = await shielded(gatherResults([
            Deferred.fromCoroutine(self._off_at(switch, cuts, reason))
            for switch, cuts in by_switch.items()
        ]))
        for failures in found:
            errors.update(failures)
        return errors

    async def _off_at(self, mac: str, cuts: list[_Cut], reason: str) -> dict[str, str]:
        lock = self._locks.setdefault(mac, DeferredLock())
        await lock.acquire()
        try:
            return await self._off_locked(mac, cuts, reason)
        finally:
            lock.release()

    async def _off_locked(self, mac: str, cuts: list[_Cut], reason: str) -> dict[str, str]:
        todo = [cut for cut in cuts if self.is_off(cut.node) is None]
        switch = self._registry.get(mac)
        if switch is None:
            return {cut.node: NO_PLACE for cut in todo}
        if not todo:
            return {}
        try:
            (survey,) = (await self._exploration.read({mac: target(switch)})).values()
        except WaltError as error:
            return {cut.node: f"{switch.name}: {error}" for cut in todo}
        if survey.failure is not None:
            return {cut.node: f"{switch.name}: {survey.failure}" for cut in todo}
        errors: dict[str, str] = {}
        records: list[PortOff] = []
        for cut in todo:
            why = self._why_not(switch, survey, cut)
            power = survey.power_of(cut.port)
            if why is not None or power is None:
                errors[cut.node] = why or NO_PLACE
                continue
            records.append(PortOff(mac, cut.port, reason, power.control, power.on, cut.node))
        if not records:
            return errors
        await self._store.note_off(records)
        for record in records:
            key = (record.switch, record.port)
            self._off.put(record)
            self._since[key] = self._clock.seconds()
        found = await gatherResults([
            Deferred.fromCoroutine(self._cut(switch, survey, record)) for record in records
        ])
        for record, why in zip(records, found, strict=True):
            if why is not None:
                errors[str(record.node)] = why
        return errors

    def _why_not(self, switch: Device, survey: Survey, cut: _Cut) -> str | None:
        """Return why a port is not cut, None when everything agrees that it feeds the node."""
        where, power = self._where(switch, cut.port), survey.power_of(cut.port)
        if power is None:
            return _unproved(survey, cut.port, where)
        if not power.is_on:
            return f"{where} is switched off on the switch itself"
        if not power.delivers:
            return f"{where} delivers no power: the node is fed otherwise"
        if survey.whole(cut.port) != cut.port:
            return f"{where} is a part of an aggregate"
        strangers = self._strangers(switch, survey, cut)
        if strangers:
            return f"{where} leads to {enumerate_names(sorted(strangers))}, too"
        node = self._registry.get(cut.node)
        addresses = {cut.node, node.vpn_mac if node is not None else None}
        elsewhere = [
            port for port, macs in survey.behind.items()
            if port != cut.port and addresses & macs
        ]
        if elsewhere:
            now = self._exploration.port_name(switch.mac, elsewhere[0])
            return (
                f"it is at port {now} now, not at {where}; run: walt device rescan {switch.name}"
            )
        if not cut.seen_by_switch and cut.node not in survey.behind.get(cut.port, ()):
            return f"only the node itself says that it is at {where}, the switch does not"
        return None

    def _strangers(self, switch: Device, survey: Survey, cut: _Cut) -> set[str]:
        """Return what else is, or may be, at a port."""
        behind = survey.behind.get(cut.port, frozenset())
        found = {self._named(mac) for mac in behind - {cut.node}}
        more = survey.counts.get(cut.port, 0) - len(behind)
        if more > 0:
            found.add(f"{more} unknown devices")
        for neighbour in survey.neighbours:
            if neighbour.interface == cut.port and neighbour.mac != cut.node:
                found.add(
                    self._named(neighbour.mac) if neighbour.mac else "a device without address"
                )
        for link in self._exploration.links.at((switch.mac, cut.port)):
            other = link.other(switch.mac)[0]
            if other != cut.node:
                found.add(self._named(other))
        return found

    def _named(self, mac: str) -> str:
        device = self._registry.get(mac)
        return device.name if device is not None else f"an unknown device ({mac})"

    async def _cut(self, switch: Device, survey: Survey, record: PortOff) -> str | None:
        """Switch a port off, once; return why it failed. Then it is powered again."""
        power = survey.power_of(record.port)
        assert power is not None
        where = self._where(switch, record.port)
        try:
            now = await self._switches.set(target(switch), power.control, power.off)
        except WaltError as error:
            why = f"{where}: {error}"
        else:
            if now == power.off:
                self._platform.write("devices", f"{where} powered off ({record.reason})")
                return None
            why = f"{where}: the switch accepted it, but the port is still on"
        await self._settle(switch, record, power)
        return why

    async def _settle(self, switch: Device, record: PortOff, power: PowerPort) -> None:
        """After a failure: the port is on, or the record stays until it is."""
        try:
            now = await self._switches.set(target(switch), power.control, power.on)
        except WaltError:
            now = await self._state(switch, power)
        if now == power.on:
            await self._forget(record)
        else:
            self._since.pop((record.switch, record.port), None)

    async def _state(self, switch: Device, power: PowerPort) -> int | None:
        """Return what the switch has for a port at present, None when it does not tell."""
        try:
            (survey,) = (await self._exploration.read({switch.mac: target(switch)})).values()
        except WaltError:
            return None
        for port in survey.power:
            if port.control == power.control:
                return port.on if port.is_on else port.off
        return None

    # -- on --------------------------------------------------------------

    async def on(self, macs: Collection[str]) -> Mapping[str, str]:
        """Switch nodes on; return, by MAC, the reasons of the failures."""
        records = [
            record for mac in dict.fromkeys(macs)
            for record in self._off.of_node.get(mac, {}).values()
        ]
        errors = await self._on(records)
        return {
            str(record.node): errors[record.switch, record.port]
            for record in records if (record.switch, record.port) in errors
        }

    async def _on(self, records: Iterable[PortOff]) -> dict[Key, str]:
        by_switch: dict[str, list[PortOff]] = {}
        for record in records:
            by_switch.setdefault(record.switch, []).append(record)
        found = await shielded(gatherResults([
            Deferred.fromCoroutine(self._on_at(mac, ports)) for mac, ports in by_switch.items()
        ]))
        return {key: error for errors in found for key, error in errors.items()}

    async def _on_at(self, mac: str, records: list[PortOff]) -> dict[Key, str]:
        lock = self._locks.setdefault(mac, DeferredLock())
        await lock.acquire()
        try:
            switch = self._registry.get(mac)
            if switch is None:
                await self._store.note_on(records)
                for record in records:
                    self._off.drop(record)
                return {}
            found = await gatherResults([
                Deferred.fromCoroutine(self._power(switch, record)) for record in records
                if (record.switch, record.port) in self._off.by_port
            ])
            return {key: error for key, error in found if error is not None}
        finally:
            lock.release()

    async def _power(self, switch: Device, record: PortOff) -> tuple[Key, str | None]:
        key = (record.switch, record.port)
        where = self._where(switch, record.port)
        self._since.pop(key, None)  # tried again if it fails now
        try:
            now = await self._switches.set(target(switch), record.control, record.on)
        except WaltError as error:
            return key, f"{where}: {error}"
        if now is None:
            await self._forget(record)
            return key, f"{where}: the switch has no such port any more"
        if now != record.on:
            return key, f"{where}: the switch accepted it, but the port is still off"
        await self._forget(record)
        self._platform.write("devices", f"{where} powered on")
        return key, None

    async def _forget(self, record: PortOff) -> None:
        await self._store.note_on([record])
        self._off.drop(record)
        self._since.pop((record.switch, record.port), None)

    # -- always on again -------------------------------------------------

    def load(self) -> None:
        """Take over what the previous run had switched off; `restore` powers it again."""
        self._off = _Off(self._exploration.off_ports)

    async def restore(self, switches: Iterable[str] | None = None) -> dict[str, str]:
        """Power what is recorded off, of some switches (MACs) or all.

        Returns, by the name of each switch concerned, the reason of a failure or nothing.
        """
        chosen = None if switches is None else set(switches)
        records = [
            record for record in self._off.by_port.values()
            if chosen is None or record.switch in chosen
        ]
        errors = await self._on(records)
        told: dict[str, str] = {}
        for record in records:
            switch = self._registry.get(record.switch)
            if switch is not None:
                error = errors.get((record.switch, record.port), "")
                told[switch.name] = told.get(switch.name) or error
        return told

    async def keep_on(self) -> None:
        """Power what should be on: after failures, and after cuts that nobody ended."""
        now = self._clock.seconds()
        due = [
            record for key, record in self._off.by_port.items()
            if key not in self._since or (
                record.reason == HARD_REBOOT and now - self._since[key] > LONGEST_CUT
            )
        ]
        for key, error in (await self._on(due)).items():
            _log.warn("port {key} is still off: {error}", key=key[1], error=error)


def _unproved(survey: Survey, port: int, where: str) -> str:
    """Return why nothing feeds a port for certain."""
    if not survey.power:
        return f"{where}: the switch has no table of PoE"
    refused = sorted({power.refused for power in survey.power if power.refused is not None})
    if refused:
        return f"{where}: {refused[0]}"
    return f"{where}: no port of its power supply is this one"

