"""One port, many numbers: what each table calls a port, mapped to its interface by evidence.

LLDP, the bridge and the power supply number ports each in its own way. A mapping is never
made by position or count: it names the evidence for it, and what other evidence says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from walt.server.domain.switches.snmp_interfaces import Interface, bridge_ports, interfaces
from walt.server.domain.switches.tables import Answers, identifier, mac, oid, words

# LLDP-MIB, IEEE 802.1AB-2005 annex: lldpLocPortTable.
LOC_PORT_SUBTYPE = oid("1.0.8802.1.1.2.1.3.7.1.2")
LOC_PORT_ID = oid("1.0.8802.1.1.2.1.3.7.1.3")
LOC_PORT_DESC = oid("1.0.8802.1.1.2.1.3.7.1.4")

PORT_SUBTYPES = {
    1: "interfaceAlias", 2: "portComponent", 3: "macAddress", 4: "networkAddress",
    5: "interfaceName", 6: "agentCircuitId", 7: "local",
}

BY_ID = "LLDP's port id is the name of the interface"
BY_DESCRIPTION = "LLDP's port description is the name of the interface"
BY_ADDRESS = "LLDP's port id is the address of the interface"
BY_ALIAS = "LLDP's port id is the alias of the interface"
BY_LOCAL_ID = "LLDP's port id is the number of the interface"
BY_BRIDGE = "LLDP's port number is a number of the bridge"
BY_NUMBER = "LLDP's port number is the number of the interface"
NAMED = frozenset((BY_ID, BY_DESCRIPTION, BY_ADDRESS, BY_ALIAS))

_LAST = re.compile(r"(\d+)\D*$", re.ASCII)


class LocalPort(NamedTuple):
    """A port as LLDP numbers it.

    `interface` is its ifIndex, None when nothing tells it; `by` is the evidence, `others` what
    weaker evidence would have said.
    """

    number: int
    id: str
    subtype: str | None = None
    description: str = ""
    interface: int | None = None
    by: str | None = None
    others: frozenset[int] = frozenset()


class Numbering(NamedTuple):
    """The numbers of the ports of a switch: interfaces, of LLDP, of the bridge."""

    interfaces: Mapping[int, Interface]
    bridge: Mapping[int, int]
    local: Mapping[int, LocalPort]

    @classmethod
    def of(cls, answers: Answers) -> Numbering:
        """Read the numbers of the ports of a switch."""
        known = interfaces(answers)
        bridge = bridge_ports(answers)
        return cls(known, bridge, local_ports(answers, known, bridge))

    def of_lldp(self, number: int) -> int | None:
        """Return the ifIndex of a port of LLDP, None when nothing tells it."""
        port = self.local.get(number)
        if port is not None:
            return port.interface
        found = self.bridge.get(number, number)
        return found if found in self.interfaces else None

    def panel(self, number: int) -> int | None:
        """Return the ifIndex of the port that bears this number on the case, None in doubt.

        The port that LLDP numbers so must end in that number by its name, and no other port
        of LLDP or of the bridge may.
        """
        port = self.local.get(number)
        if port is None or port.interface is None or port.by not in NAMED:
            return None
        ports = {local.interface for local in self.local.values() if local.interface is not None}
        ending = [
            index for index in {*ports, *self.bridge.values()}
            if index in self.interfaces and last_number(self.interfaces[index].name) == number
        ]
        return port.interface if ending == [port.interface] else None

    def of_bridge(self, number: int) -> int | None:
        """Return the ifIndex of a port of the forwarding table, None when nothing tells it."""
        found = self.bridge.get(number)
        return found if found is not None else self.panel(number)


def last_number(text: str) -> int | None:
    """Return the last number in a name of a port: 12 for `gigabitEthernet 1/0/12`."""
    match = _LAST.search(text)
    return int(match[1]) if match is not None and len(match[1]) < 10 else None


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return what names one interface alone."""
    found: dict[str, int | None] = {}
    for name, index in pairs:
        found[name] = index if found.get(name, index) == index else None
    return {name: index for name, index in found.items() if name and index is not None}


def local_ports(
    answers: Answers, known: Mapping[int, Interface], bridge: Mapping[int, int]
) -> dict[int, LocalPort]:
    """Return the ports of lldpLocPortTable by their number, with the interface of each."""
    every = known.values()
    names = _unique(
        (name, interface.index)
        for interface in every for name in (interface.name, interface.descr)
    )
    addresses = _unique((interface.mac, interface.index) for interface in every if interface.mac)
    aliases = _unique((interface.alias, interface.index) for interface in every)
    subtypes = answers.numbers(LOC_PORT_SUBTYPE, 1)
    descriptions = answers.octets(LOC_PORT_DESC, 1)
    found = {}
    for index, octets in answers.octets(LOC_PORT_ID, 1).items():
        (number,) = index
        subtype = PORT_SUBTYPES.get(subtypes.get(index, 0))
        address = mac(octets) if subtype == "macAddress" else None
        name, description = address or identifier(octets), words(descriptions.get(index))
        is_number = name.isascii() and name.isdigit() and len(name) < 10
        evidence: list[tuple[str, int | None]] = [
            (BY_ID, names.get(name)),
            (BY_ADDRESS, addresses.get(address or "")),
            (BY_DESCRIPTION, names.get(description)),
            (BY_ALIAS, aliases.get(name) if subtype == "interfaceAlias" else None),
            (BY_LOCAL_ID, int(name) if subtype == "local" and is_number else None),
            (BY_BRIDGE, bridge.get(number)),
            (BY_NUMBER, number),
        ]
        holds = [(by, index) for by, index in evidence if index is not None and index in known]
        by, interface = holds[0] if holds else (None, None)
        found[number] = LocalPort(
            number, name, subtype, description, interface, by,
            frozenset(index for _, index in holds) - {interface if interface is not None else -1},
        )
    return found
