"""What one switch told, as the rules read it: small enough to cross a pipe, and to be kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from walt.server.domain.switches.bridge import LEARNED, behind, seen
from walt.server.domain.switches.lldp import LOCAL_CHASSIS_ID, SYS_NAME_OF_SELF, Neighbour
from walt.server.domain.switches.lldp import neighbours as told_neighbours
from walt.server.domain.switches.numbering import Numbering
from walt.server.domain.switches.poe import PowerPort, is_juniper, power_ports
from walt.server.domain.switches.snmp_interfaces import (
    ETHERNET,
    Interface,
    aggregates,
    own_addresses,
)
from walt.server.domain.switches.tables import Answers, mac, words

MANY = 16  # addresses behind a port above which only those of known devices are kept
MAX_PORTS = 4096  # of one switch
MAX_NEIGHBOURS = 4096
MAX_INDEX = 2**31 - 1  # InterfaceIndex of RFC 2863


@dataclass(frozen=True)
class Port:
    """An interface of a switch, and what its tables call it.

    `index` is its ifIndex, `whole` that of the aggregate it is a member of, `lldp` and `bridge`
    are its numbers in these tables, `label` its identifier of LLDP; `up`: whether there was a link,
    None when the switch did not say.
    """

    index: int
    name: str
    descr: str = ""
    alias: str = ""
    mac: str | None = None
    type: int | None = None
    whole: int | None = None
    lldp: int | None = None
    bridge: int | None = None
    label: str = ""
    up: bool | None = None


@dataclass(frozen=True)
class Survey:
    """Ports, neighbours, addresses and power of one switch.

    `behind` has the addresses that the switch learned at each ifIndex: all of them where they
    are at most MANY, else those of known devices; `counts` how many there are. `failure` says
    why it is not everything, None when it is.
    """

    name: str = ""
    addresses: frozenset[str] = frozenset()
    ports: Mapping[int, Port] = field(default_factory=dict)
    neighbours: tuple[Neighbour, ...] = ()
    behind: Mapping[int, frozenset[str]] = field(default_factory=dict)
    counts: Mapping[int, int] = field(default_factory=dict)
    power: tuple[PowerPort, ...] = ()
    has_lldp: bool = False
    has_bridge: bool = False
    failure: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing of use was told."""
        return not self.has_lldp and not self.has_bridge

    def whole(self, index: int) -> int:
        """Return the aggregate of a port, the port itself when it is in none."""
        port = self.ports.get(index)
        return port.whole if port is not None and port.whole is not None else index

    def named(self, text: str) -> int | None:
        """Return the one port that LLDP or IF-MIB call so, None in doubt."""
        for names in (
            lambda port: (port.label,), lambda port: (port.name, port.descr),
            lambda port: (port.mac or "",),
        ):
            found = [port.index for port in self.ports.values() if text and text in names(port)]
            if found:
                return found[0] if len(found) == 1 else None
        return None

    def numbers(self, index: int) -> str:
        """Return all numbers of a port, as people read them."""
        port = self.ports[index]
        found = [f"ifIndex {index}"]
        if port.lldp is not None:
            found.append(f"LLDP {port.lldp}")
        if port.bridge is not None:
            found.append(f"bridge {port.bridge}")
        power = self.power_of(index)
        if power is not None:
            found.append(f"PoE {'.'.join(map(str, power.index))}")
        return ", ".join(found)

    def power_of(self, index: int) -> PowerPort | None:
        """Return the power port that is proved to feed an interface."""
        found = [port for port in self.power if port.interface == index and port.refused is None]
        return found[0] if len(found) == 1 else None

    def kept(self) -> Survey:
        """Return what is remembered between two readings: ports and power, who it is."""
        return replace(self, neighbours=(), behind={}, counts={})

    def words(self) -> dict[str, Any]:
        """Return it as JSON has it; `of_words` reads it."""
        return {
            "name": self.name, "addresses": sorted(self.addresses),
            "ports": [asdict(port) for port in self.ports.values()],
            "neighbours": [asdict(neighbour) for neighbour in self.neighbours],
            "behind": [[index, sorted(macs)] for index, macs in self.behind.items()],
            "counts": [list(pair) for pair in self.counts.items()],
            "power": [asdict(port) for port in self.power],
            "has_lldp": self.has_lldp, "has_bridge": self.has_bridge, "failure": self.failure,
        }

    @classmethod
    def of_words(cls, words: Mapping[str, Any]) -> Survey:
        """Read what `words` returned, in this release or another one.

        What this one does not know is left out, what the other one did not know is as if a
        switch had not told it.
        """
        return cls(
            words["name"], frozenset(words["addresses"]),
            {word["index"]: _read(Port, word) for word in words["ports"]},
            tuple(
                _read(Neighbour, {**word, "addresses": tuple(word["addresses"])})
                for word in words["neighbours"]
            ),
            {index: frozenset(macs) for index, macs in words["behind"]},
            dict(words["counts"]),
            tuple(
                _read(PowerPort, {
                    **word, "index": tuple(word["index"]), "control": tuple(word["control"]),
                })
                for word in words["power"]
            ),
            words["has_lldp"], words["has_bridge"], words["failure"],
        )


_T = TypeVar("_T", Port, Neighbour, PowerPort)


def _read(kind: type[_T], words: Mapping[str, Any]) -> _T:
    known = kind.__dataclass_fields__
    return kind(**{name: value for name, value in words.items() if name in known})


def survey(
    answers: Answers, known: Collection[str] = (), failure: str | None = None
) -> Survey:
    """Apply all rules to what a switch answered; `known` are addresses of devices."""
    numbering = Numbering.of(answers)
    rows = seen(answers, numbering)
    base = _bases(answers, numbering)
    neighbours = [
        replace(neighbour, interface=base.get(neighbour.interface, neighbour.interface))
        if neighbour.interface is not None else neighbour
        for neighbour in told_neighbours(answers, numbering)
    ]
    everything: dict[int, frozenset[str]] = {}
    for index, macs in behind(rows).items():
        port = base.get(index, index)
        everything[port] = everything.get(port, frozenset()) | macs
    wanted = frozenset(known)
    own = own_addresses(answers)
    chassis = mac(answers.get(LOCAL_CHASSIS_ID))
    return Survey(
        words(answers.get(SYS_NAME_OF_SELF)),
        own | {chassis} if chassis is not None else own,
        _ports(answers, numbering, {
            *everything,
            *(neighbour.interface for neighbour in neighbours if neighbour.interface is not None),
        }, base),
        tuple(neighbours[:MAX_NEIGHBOURS]),
        {
            index: macs if len(macs) <= MANY else macs & wanted
            for index, macs in everything.items()
        },
        {index: len(macs) for index, macs in everything.items()},
        tuple(power_ports(answers, numbering)[:MAX_PORTS]),
        bool(neighbours or numbering.local),
        any(row.status in (None, LEARNED) for row in rows) or bool(numbering.bridge),
        failure,
    )


def _bases(answers: Answers, numbering: Numbering) -> dict[int, int]:
    """Return the port of each logical interface: that of `ge-0/0/1.0` is `ge-0/0/1`.

    Juniper's switches forward by the former, and name the latter in other tables.
    """
    if not is_juniper(answers):
        return {}
    by_name: dict[str, list[int]] = {}
    for interface in numbering.interfaces.values():
        by_name.setdefault(interface.name, []).append(interface.index)
    found = {}
    for interface in numbering.interfaces.values():
        name, _, unit = interface.name.rpartition(".")
        if unit.isdecimal() and len(by_name.get(name, ())) == 1:
            found[interface.index] = by_name[name][0]
    return found


def _ports(
    answers: Answers, numbering: Numbering, used: Collection[int], base: Mapping[int, int]
) -> dict[int, Port]:
    """Return the interfaces that are ports: Ethernet, or named by a table of ports, or used."""
    known = numbering.interfaces
    wholes = {
        base.get(member, member): base.get(whole, whole)
        for member, whole in aggregates(answers, known).items()
    }
    lldp: dict[int, tuple[int | None, str]] = {}
    for local in numbering.local.values():
        if local.interface is not None:
            lldp.setdefault(base.get(local.interface, local.interface), (local.number, local.id))
    bridge: dict[int, int] = {}
    for number, index in numbering.bridge.items():
        bridge.setdefault(base.get(index, index), number)

    def is_port(interface: Interface) -> bool:
        return 0 < interface.index <= MAX_INDEX and (
            interface.index in lldp or interface.index in bridge or interface.index in used
            or interface.type == ETHERNET
        )

    found: dict[int, Port] = {}
    nothing: tuple[int | None, str] = (None, "")
    for index, interface in known.items():
        if is_port(interface) and len(found) < MAX_PORTS:
            lldp_number, label = lldp.get(index, nothing)
            found[index] = Port(
                index, interface.name, interface.descr, interface.alias, interface.mac,
                interface.type, wholes.get(index),
                lldp_number, bridge.get(index), label, interface.up,
            )
    return found
