"""What is known of switches, and the command that asks them (spec server §4.12, §6.6)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import DeferredLock
from zope.interface import implementer

from walt.common.errors import Invalid, NotFound, Unavailable
from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.sets import parse_devices
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.interfaces import ITopology
from walt.server.domain.requester import IRequester, NobodyWaits, by_itself
from walt.server.domain.switches import topology
from walt.server.domain.switches.interfaces import (
    ISwitches,
    ISwitchStore,
    PortOff,
    SnmpTarget,
    SnmpUser,
)
from walt.server.domain.switches.known_links import KnownLinks
from walt.server.domain.switches.poe import PowerPort
from walt.server.domain.switches.survey import Survey
from walt.server.domain.switches.topology import Link
from walt.server.runtime.coroutines import unbroken

LOOK_AGAIN = 600.0  # seconds between two readings of a switch that nodes cause
NEIGHBOURS_KEPT = 100  # devices that one scan adds, found by LLDP
NAMES_SHOWN = 3  # of switches that a reading waits for
_PORT_NAME = re.compile(r"[A-Za-z0-9-]{1,63}", re.ASCII)
NO_TABLE = (
    "it answers, but shows neither LLDP neighbours nor a bridge table: may this community read"
    " them?"
)
NO_ADDRESS = "no address of it is known: it has to ask for one by DHCP"

Restore = Callable[[Iterable[str]], Awaitable[Mapping[str, str]]]


class Result(NamedTuple):
    """What became of one device of a scan; `kind` is OK, FAILED, FORBIDDEN or INVALID."""

    device: Device
    kind: str
    detail: str = ""

    def line(self) -> str:
        """Return the line that people read (user-surface §1.11)."""
        name = "walt server" if self.device.type == "server" else self.device.name
        note = f" ({self.detail})" if self.detail else ""
        return f"Querying {name:<25} {self.kind}{note}"

    def row(self) -> dict[str, Any]:
        """Return what programs get."""
        return {
            "name": self.device.name, "mac": self.device.mac, "result": self.kind,
            "detail": self.detail or None,
        }


def target(switch: Device) -> SnmpTarget:
    """Return how a switch is asked. Raises Unavailable when that is not known."""
    if switch.ip is None:
        raise Unavailable(NO_ADDRESS)
    conf = switch.conf
    if conf["snmp.version"] == 3:
        return SnmpTarget(switch.ip, 3, user=SnmpUser(
            str(conf["snmp.user"]), str(conf["snmp.auth"]), str(conf["snmp.priv"]),
            str(conf.get("snmp.auth.protocol", SnmpUser.auth_protocol)),
            str(conf.get("snmp.priv.protocol", SnmpUser.priv_protocol)),
        ))
    return SnmpTarget(switch.ip, int(conf["snmp.version"]), str(conf["snmp.community"]))


@implementer(ITopology)
class Exploration:
    """Surveys and links: read at start, kept in memory, written at each change.

    `own` is how the server's own agent is asked, None when there is none. `register` records a
    device that a switch told of (MAC, address, name).
    """

    def __init__(
        self, registry: DeviceRegistry, switches: ISwitches, store: ISwitchStore,
        platform: PlatformLog, now: Callable[[], float],
        register: Callable[[str, str | None, str], Awaitable[None]],
        own: SnmpTarget | None = None,
    ) -> None:
        self._registry = registry
        self._switches = switches
        self._store = store
        self._platform = platform
        self._now = now
        self._register = register
        self._own = own
        self._turn = DeferredLock()
        self._looked: dict[str, float] = {}
        self.surveys: dict[str, Survey] = {}
        self.moments: dict[str, float] = {}
        self.links = KnownLinks()
        self._unsure = False  # whether the store has the links: nobody heard of the end
        self.revision = 0  # another one since links, surveys or names of ports changed
        self.names: dict[tuple[str, int], str] = {}
        self.off_ports: Sequence[PortOff] = ()  # as they were at start

    async def load(self) -> None:
        """Take over what the previous run knew."""
        kept = await self._store.load()
        self.surveys, self.moments = dict(kept.surveys), dict(kept.moments)
        self.links, self.names = KnownLinks(kept.links), dict(kept.names)
        self.off_ports = kept.off
        self._registry.observe(self._on_devices)

    def _on_devices(self, changes: Iterable[Change]) -> None:
        """Know nothing of the cables of devices that are forgotten; the store does not, either."""
        for old, new in changes:
            if old is not None and new is None and self.links.of(old.mac):
                self.links.change(self.links.of(old.mac), ())
                self.revision += 1

    # -- what is known ---------------------------------------------------

    def place(self, mac: str) -> tuple[Device, int, Link] | None:
        """Return switch, port and link of a device; None when it is at no known port."""
        for link in self.links.of(mac):
            other, port = link.other(mac)
            switch = self._registry.get(other)
            if switch is not None and switch.type == "switch" and port is not None:
                return switch, port, link
        return None

    def port_name(self, switch: str, port: int | None) -> str | None:
        """Return the name that people gave to a port, else the switch's own one."""
        if port is None:
            return None
        given = self.names.get((switch, port))
        if given is not None:
            return given
        survey = self.surveys.get(switch)
        known = survey.ports.get(port) if survey is not None else None
        return known.name if known is not None else str(port)

    def power_port(self, switch: str, port: int) -> PowerPort | None:
        """Return the power port that was proved to feed a port, at the last look."""
        survey = self.surveys.get(switch)
        return survey.power_of(port) if survey is not None else None

    def labelled(self, switch: str, label: str) -> int | None:
        """Return the port that a neighbour of it calls so, None in doubt."""
        survey = self.surveys.get(switch)
        return survey.named(label) if survey is not None else None

    async def locate(self, node_mac: str, switch_mac: str, port: int | None) -> bool:
        """Record what a node says of its place; see ITopology."""
        await self._turn.acquire()
        try:
            known = self.links.of(node_mac)
            at = [link.other(node_mac) for link in known if link.other(node_mac)[0] == switch_mac]
            if at and (port is None or at[0][1] == port) and known[0].confirmed:
                return False
            end = (switch_mac, port if port is not None else at[0][1] if at else None)
            if end[1] is not None and any(
                node_mac not in link.macs for link in self.links.at(end)
            ):
                return False
            if any(link.confirmed and link.evidence != topology.REPORT for link in known):
                return False  # a switch has seen it: that is worth more than what it says
            new = Link.of((node_mac, None), end, topology.REPORT, self._now())
            await self._keep({}, known, [new])
            return [link.ends for link in known] != [new.ends]
        finally:
            self._turn.release()

    async def forget_place(self, mac: str) -> None:
        """A node is where it was no longer."""
        await self._turn.acquire()
        try:
            await self._keep({}, self.links.of(mac), [])
        finally:
            self._turn.release()

    @unbroken
    async def _keep(
        self, surveys: Mapping[str, Survey], gone: Sequence[Link], added: Sequence[Link]
    ) -> None:
        """Record surveys, and links that are there in place of others."""
        news = topology.news(gone, added)
        if self._unsure:
            left = set(gone)
            stored = [*(link for link in self.links if link not in left), *added]
            await self._store.save(surveys, None, stored, news)
        else:
            self._unsure = True
            await self._store.save(surveys, gone, added, news)
        self._unsure = False
        # A device may have been forgotten meanwhile.
        self.links.change(gone, [link for link in added if all(map(self._registry.get, link.macs))])
        self.revision += 1
        for mac, survey in surveys.items():
            self.surveys[mac] = survey.kept()
            self.moments[mac] = self._now()

    # -- scans -----------------------------------------------------------

    async def rescan(
        self, devices: str, requester: IRequester, restore: Restore, *, quiet: bool = False
    ) -> list[Result]:
        """Ask the switches of a set; tell a line for each, unless `quiet`.

        `restore` switches on what the server had switched off at some switches (MACs), and
        returns the reasons of failures by the name of the switch. Raises NotFound, Invalid.
        """
        chosen = parse_devices(self._registry, devices, requester.username)

        def tell(result: Result) -> None:
            (requester.stdout if result.kind == "OK" else requester.stderr)(result.line())

        await self._turn.acquire()
        try:
            return await self._rescan(chosen, requester, None if quiet else tell, restore)
        finally:
            self._turn.release()

    async def look_again(self, switch: Device) -> None:
        """Read a switch of which something is not known, not more often than LOOK_AGAIN."""
        if self._now() - self._looked.get(switch.mac, float("-inf")) < LOOK_AGAIN:
            return
        self._looked[switch.mac] = self._now()
        await self._turn.acquire()
        try:
            await self._rescan([switch], NobodyWaits())
        finally:
            self._turn.release()

    async def _rescan(
        self, chosen: list[Device], requester: IRequester,
        tell: Callable[[Result], None] | None = None, restore: Restore | None = None,
    ) -> list[Result]:
        """Ask devices; `tell` gets the result of each as soon as it is known."""
        found: dict[str, Result] = {}

        def note(result: Result) -> None:
            found[result.device.mac] = result
            if tell is not None:
                tell(result)

        targets: dict[str, SnmpTarget] = {}
        for device in chosen:
            refused = _refusal(device)
            if refused is not None:
                note(refused)
            elif device.type == "switch":
                targets[device.mac] = target(device)
        if restore is not None:
            self._tell_restored(await restore(targets), requester)
        server = self._registry.server
        if server is not None and self._own is not None:
            targets[server.mac] = self._own

        def on_read(mac: str, survey: Survey) -> None:
            switch = self._registry.get(mac)
            if switch is not None and switch.type != "server":
                note(_result(switch, survey))

        surveys = await self.read(targets, requester, on_read)
        usable = {mac: survey for mac, survey in surveys.items() if not survey.is_empty}
        await self._take(usable, NobodyWaits() if tell is None else requester)
        for device in chosen:
            if device.type == "server":
                note(self._result_of_server(device, surveys.get(device.mac)))
        return [found[device.mac] for device in chosen if device.mac in found]

    @unbroken
    async def _take(self, usable: Mapping[str, Survey], requester: IRequester) -> None:
        """Record what was read; tell what was plugged elsewhere."""
        with by_itself():  # who asks for a look has not plugged what it finds
            await self._register_neighbours(usable)
        kinds = {device.mac: device.type for device in self._registry.all()}
        before = list(self.links)
        links = topology.merge(
            {mac: survey for mac, survey in usable.items() if mac in kinds},
            {mac: survey for mac, survey in self.surveys.items() if mac in kinds},
            kinds, before, self._now(),
        )
        old, new = set(before), set(links)
        await self._keep(
            {mac: survey for mac, survey in usable.items() if survey.failure is None},
            [link for link in before if link not in new],
            [link for link in links if link not in old],
        )
        for move in topology.moves(before, links, kinds):
            self._tell_move(move, requester)

    async def read(
        self, targets: Mapping[str, SnmpTarget], requester: IRequester | None = None,
        on_read: Callable[[str, Survey], None] = lambda mac, survey: None,
    ) -> dict[str, Survey]:
        """Ask switches, by MAC, with progress for the requester; `on_read` gets each at once."""
        known = {device.mac for device in self._registry.all()}
        for survey in self.surveys.values():
            known |= survey.addresses
        macs = list(targets)
        waiting = dict.fromkeys(macs)

        def busy() -> None:
            if requester is not None and waiting:
                requester.busy(self._waiting(len(macs), list(waiting)))

        def told(place: int, survey: Survey) -> None:
            waiting.pop(macs[place], None)
            on_read(macs[place], survey)
            busy()

        busy()
        surveys = await self._switches.read(list(targets.values()), sorted(known), told)
        return dict(zip(targets, surveys, strict=True))

    def _waiting(self, whole: int, waiting: Sequence[str]) -> str:
        """Say how far a reading is, and which switches it waits for."""
        devices = [self._registry.get(mac) for mac in waiting[:NAMES_SHOWN]]
        names = [device.name for device in devices if device is not None]
        more = [f"{len(waiting) - len(names)} more"] if len(waiting) > len(names) else []
        return (
            f"Querying switches: {whole - len(waiting)} of {whole},"
            f" waiting for {', '.join([*names, *more])}"
        )

    def _tell_move(self, move: topology.Move, requester: IRequester) -> None:
        """Tell, and log, that something was plugged elsewhere."""
        device = self._registry.get(move.end[0])
        if device is None:
            return
        what = device.name
        if device.type == "switch":
            what = f"{what} port {self.port_name(*move.end)}"
        now, before = self._place_words(move.now), self._place_words(move.before)
        requester.stdout(f"Moved: {what} is at {now} now, it was at {before}")
        kind = {"node": "Node", "switch": "Switch", "server": "Server"}.get(device.type, "Device")
        self._platform.write("devices", f"{kind} {what} is now connected on {now}")

    def _place_words(self, end: topology.End) -> str:
        device = self._registry.get(end[0])
        name = device.name if device is not None else end[0]
        return name if end[1] is None else f"{name} port {self.port_name(*end)}"

    def _tell_restored(self, restored: Mapping[str, str], requester: IRequester) -> None:
        for switch, reason in restored.items():
            if reason:
                requester.stderr(f"{switch}: some ports could not be powered on again: {reason}")
            else:
                requester.stderr(
                    f"{switch}: ports that were powered off to save power are on again. Nodes"
                    " there may need some minutes to be seen: run this command again in 10"
                    " minutes."
                )

    def _result_of_server(self, server: Device, survey: Survey | None) -> Result:
        """The place of the server is what switches see, and what it hears itself."""
        links = [link for link in self.links.of(server.mac) if link.confirmed]
        if links:
            evidence = "BRIDGE-only data" if links[0].evidence == topology.BRIDGE else ""
            return Result(server, "OK", evidence)
        agent = ""
        if survey is not None and survey.failure is not None:
            agent = f"; its own agent: {survey.failure}"
        return Result(
            server, "FAILED",
            "it hears no switch, and no explored switch sees it: explore the one it is connected"
            f" to{agent}",
        )

    async def _register_neighbours(self, surveys: Mapping[str, Survey]) -> None:
        """Record devices that only LLDP tells of; nothing is changed of those that are known."""
        own = {
            address for survey in (*surveys.values(), *self.surveys.values())
            for address in survey.addresses
        }
        added = 0
        for survey in surveys.values():
            for neighbour in survey.neighbours:
                if (
                    neighbour.mac is None or neighbour.is_self or neighbour.mac in own
                    or added >= NEIGHBOURS_KEPT
                    or self._registry.get(neighbour.mac) is not None
                ):
                    continue
                added += 1
                address = next((
                    ip for ip in neighbour.addresses if self._registry.by_ip(ip) is None
                ), None)
                await self._register(neighbour.mac, address, neighbour.name.lower())

    # -- ports -----------------------------------------------------------

    def explored_switch(self, name: str) -> Device:
        """Return a switch whose ports may be looked at. Raises NotFound, Invalid."""
        device = self._registry.named(name)
        if device.type != "switch":
            raise Invalid(f"{name} is not a switch, its type is {device.type}")
        if not device.conf.get("lldp.explore"):
            raise Invalid(
                f"{name} is not explored; see: walt device config {name} lldp.explore=true"
            )
        return device

    def port_number(self, switch: Device, port: str) -> int:
        """Return the port of a number (ifIndex) or name. Raises NotFound, Invalid."""
        survey = self.surveys.get(switch.mac)
        if survey is None:
            raise NotFound(
                f"nothing is known of the ports of {switch.name} yet; run: walt device rescan"
                f" {switch.name}"
            )
        if port.isascii() and port.isdigit() and len(port) < 11 and int(port) in survey.ports:
            return int(port)
        given = [number for (mac, number), name in self.names.items()
                 if mac == switch.mac and name == port]
        found = given or [known.index for known in survey.ports.values() if known.name == port]
        if len(found) != 1:
            raise NotFound(
                f"{switch.name} has no port {port[:80]!r}; see: walt device port-config"
                f" {switch.name}"
            )
        return found[0]

    @unbroken
    async def set_port(
        self, name: str, port: str, words: Sequence[str], requester: IRequester
    ) -> None:
        """Change settings of a port: `name=TEXT` is the only one. Raises NotFound, Invalid."""
        switch = self.explored_switch(name)
        number = self.port_number(switch, port)
        for word in words:
            setting, equals, value = word.partition("=")
            if setting in ("poe", "peer") and equals:
                raise Invalid(f"{setting} of a port can only be read")
            if setting != "name" or not equals:
                raise Invalid(f"{word[:80]!r} is no setting of a port; write name=TEXT")
            default = value == str(number)
            if not default and (not _PORT_NAME.fullmatch(value) or value.isdigit()):
                raise Invalid(
                    "the name of a port has letters, digits and dashes, at most 63, and is no"
                    f" number but its own ({number}), which takes the name away"
                )
            taken = [other for (mac, other), text in self.names.items()
                     if mac == switch.mac and text == value and other != number]
            if taken:
                raise Invalid(f"port {taken[0]} of {name} has this name already")
            await self._store.name_port(switch.mac, number, None if default else value)
            self.revision += 1
            if default:
                self.names.pop((switch.mac, number), None)
            else:
                self.names[switch.mac, number] = value
            self._platform.deed(
                "devices", f"device {switch.name}", f"port {number} named {value}",
                requester.username,
            )


def _refusal(device: Device) -> Result | None:
    """Return why a device is not asked, None when it is."""
    if device.type not in ("switch", "server"):
        return Result(
            device, "INVALID", f"neither a switch nor the server, its type is {device.type}"
        )
    if device.type == "switch" and not device.conf.get("lldp.explore"):
        return Result(
            device, "FORBIDDEN",
            f"it may not be explored; see: walt device config {device.name} lldp.explore=true",
        )
    if device.type == "switch" and device.ip is None:
        return Result(device, "FAILED", NO_ADDRESS)
    return None


def _result(device: Device, survey: Survey) -> Result:
    if survey.failure is not None:
        return Result(device, "FAILED", survey.failure)
    if survey.is_empty:
        return Result(device, "FAILED", NO_TABLE)
    if not survey.has_bridge:
        return Result(device, "OK", "LLDP-only data")
    if not survey.has_lldp:
        return Result(device, "OK", "BRIDGE-only data")
    return Result(device, "OK")

