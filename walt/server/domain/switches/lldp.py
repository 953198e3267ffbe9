"""Neighbours that a switch tells by LLDP: its standard table, and that of TP-Link."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from walt.server.domain.switches.numbering import PORT_SUBTYPES, Numbering, last_number
from walt.server.domain.switches.snmp_interfaces import own_addresses
from walt.server.domain.switches.tables import (
    Answers,
    Oid,
    identifier,
    mac,
    oid,
    words,
)

# LLDP-MIB, IEEE 802.1AB-2005 annex: lldpRemTable, lldpRemManAddrTable, local system data.
REMOTE = oid("1.0.8802.1.1.2.1.4.1.1")
CHASSIS_SUBTYPE, CHASSIS_ID = (*REMOTE, 4), (*REMOTE, 5)
PORT_SUBTYPE, PORT_ID, PORT_DESC, SYS_NAME = (*REMOTE, 6), (*REMOTE, 7), (*REMOTE, 8), (*REMOTE, 9)
MANAGEMENT = oid("1.0.8802.1.1.2.1.4.2.1")
LOCAL_CHASSIS_ID = oid("1.0.8802.1.1.2.1.3.2.0")
SYS_NAME_OF_SELF = oid("1.0.8802.1.1.2.1.3.3.0")
# TPLINK-LLDPINFO-MIB, lldpNeighborInfoTable.
TPLINK = oid("1.3.6.1.4.1.11863.6.35.1.2.2.1")
TPLINK_LOCAL = oid("1.3.6.1.4.1.11863.6.35.1.2.1.1.1")

CHASSIS_SUBTYPES = {
    1: "chassisComponent", 2: "interfaceAlias", 3: "portComponent", 4: "macAddress",
    5: "networkAddress", 6: "interfaceName", 7: "local",
}
_TPLINK_TYPES = {"MAC address": "macAddress", "Interface name": "interfaceName"}
_IPV4 = 1  # address family number (IANA)


@dataclass(frozen=True)
class Neighbour:
    """What is at the other end of a cable, by its own words.

    `port` is the local port's number of LLDP, `interface` its ifIndex. `mac` identifies the
    device where it tells one, as chassis or, as telephones do, as port. `addresses` are those of
    IPv4 that can be asked. `is_self`: the switch sees itself, by a loop.
    """

    port: int
    chassis: str
    chassis_type: str | None
    remote_port: str
    remote_port_type: str | None
    interface: int | None = None
    remote_description: str = ""
    name: str = ""
    mac: str | None = None
    addresses: tuple[str, ...] = ()
    is_self: bool = False


def neighbours(answers: Answers, numbering: Numbering) -> list[Neighbour]:
    """Return every neighbour; all of a port where there are several, as of telephones with PCs."""
    own = own_addresses(answers)
    address = mac(answers.get(LOCAL_CHASSIS_ID))
    own = own | {address} if address is not None else own
    return _standard(answers, numbering, own) or _of_tplink(answers, numbering, own)


def _standard(answers: Answers, numbering: Numbering, own: frozenset[str]) -> list[Neighbour]:
    chassis_types, port_types = answers.numbers(CHASSIS_SUBTYPE), answers.numbers(PORT_SUBTYPE)
    ids, descriptions = answers.octets(PORT_ID), answers.octets(PORT_DESC)
    names, managed = answers.octets(SYS_NAME), _management(answers)
    found = []
    for index, octets in answers.octets(CHASSIS_ID).items():
        # The time mark before the port is left out by some agents (TP-Link's).
        if len(index) not in (2, 3):
            continue
        port = index[-2]
        kind = CHASSIS_SUBTYPES.get(chassis_types.get(index, 0))
        port_kind = PORT_SUBTYPES.get(port_types.get(index, 0))
        port_id = ids.get(index, b"")
        address = mac(octets) if kind == "macAddress" else None
        if address is None and port_kind == "macAddress":
            address = mac(port_id)
        found.append(Neighbour(
            port, _shown(octets, kind), kind, _shown(port_id, port_kind), port_kind,
            numbering.of_lldp(port),
            words(descriptions.get(index)), words(names.get(index)), address,
            tuple(managed.get(index, ())), address in own,
        ))
    return found


def _shown(octets: bytes, kind: str | None) -> str:
    """Return an identifier as its type says (IEEE 802.1AB-2016 §8.5.2, §8.5.3)."""
    if kind == "macAddress" and len(octets) == 6:
        return octets.hex(":")
    if kind == "networkAddress" and len(octets) == 5 and octets[0] == _IPV4:
        return str(IPv4Address(octets[1:]))
    return identifier(octets)


def _management(answers: Answers) -> dict[Oid, list[str]]:
    """Return the usable addresses of IPv4 of each row of lldpRemTable.

    They are in the index of a table of their own, after the family: the length and the octets.
    Agents are met that leave the length out, or count and repeat the family in it.
    """
    found: dict[Oid, list[str]] = {}
    for column in (3, 4, 5):
        for index, _ in answers.column((*MANAGEMENT, column)):
            row, family, rest = index[:3], index[3:4], index[4:]
            if family != (_IPV4,):
                continue
            if rest[:1] == (4,) and len(rest) == 5:
                rest = rest[1:]
            elif rest[:2] == (5, _IPV4) and len(rest) == 6:
                rest = rest[2:]
            address = _ipv4(rest)
            if address is not None and address not in found.setdefault(row, []):
                found[row].append(address)
    return found


def _ipv4(octets: Oid) -> str | None:
    """Return an address that a device can be asked at, None for any other."""
    if len(octets) != 4 or max(octets) > 255:
        return None
    address = IPv4Address(bytes(octets))
    wrong = (
        address.is_unspecified or address.is_loopback or address.is_multicast
        or address.is_reserved or address.is_link_local
    )
    return None if wrong else str(address)


def _of_tplink(answers: Answers, numbering: Numbering, own: frozenset[str]) -> list[Neighbour]:
    """Return the neighbours of TP-Link's table: texts, by ifIndex.

    The number of a port is the last one of its text: 15 of `1/0/15`.
    """
    columns = {n: answers.octets((*TPLINK, n), 2) for n in (1, 3, 4, 5, 6, 8, 9)}
    local = answers.octets(TPLINK_LOCAL, 1)
    found = []
    for index, octets in columns[4].items():
        label = columns[1].get(index) or local.get(index[:1]) or b""
        port = last_number(identifier(label))
        if port is None:
            continue
        kind, port_kind = (_TPLINK_TYPES.get(words(columns[n].get(index))) for n in (3, 5))
        port_id = columns[6].get(index, b"")
        address = mac(octets) if kind == "macAddress" else None
        if address is None and port_kind == "macAddress":
            address = mac(port_id)
        found.append(Neighbour(
            port, address if kind == "macAddress" and address else identifier(octets), kind,
            identifier(port_id), port_kind,
            index[0] if index[0] in numbering.interfaces else numbering.panel(port),
            words(columns[8].get(index)), words(columns[9].get(index)), address, (),
            address in own,
        ))
    return found
