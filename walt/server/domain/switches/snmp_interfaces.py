"""Interfaces of a switch (IF-MIB, RFC 2863): what its ports are to us, whatever their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from walt.server.domain.switches.tables import Answers, Oid, mac, oid, words

IF_DESCR = oid("1.3.6.1.2.1.2.2.1.2")
IF_TYPE = oid("1.3.6.1.2.1.2.2.1.3")
IF_PHYS_ADDRESS = oid("1.3.6.1.2.1.2.2.1.6")
IF_OPER_STATUS = oid("1.3.6.1.2.1.2.2.1.8")
IF_NAME = oid("1.3.6.1.2.1.31.1.1.1.1")
IF_ALIAS = oid("1.3.6.1.2.1.31.1.1.1.18")
BASE_ADDRESS = oid("1.3.6.1.2.1.17.1.1")  # dot1dBaseBridgeAddress, RFC 4188
BASE_PORT_IF_INDEX = oid("1.3.6.1.2.1.17.1.4.1.2")
# dot3adAggPortAttachedAggID, IEEE 802.3 annex 30C: the aggregate of each of its ports.
AGGREGATE_OF = oid("1.2.840.10006.300.43.1.2.1.1.13")

ETHERNET = 6  # ifType ethernetCsmacd
# ifOperStatus: up or dormant (there is a link, which waits for something); without a link it is
# down, notPresent or lowerLayerDown. Of testing and unknown nothing follows.
_UP, _DOWN = frozenset({1, 5}), frozenset({2, 6, 7})


@dataclass(frozen=True)
class Interface:
    """One row of ifTable. `mac` is its own address, in many switches that of all of them; `up`:
    whether it has a link, None when the switch does not say.
    """

    index: int
    name: str
    descr: str = ""
    alias: str = ""
    type: int | None = None
    mac: str | None = None
    up: bool | None = None


def interfaces(answers: Answers) -> dict[int, Interface]:
    """Return the interfaces by ifIndex; the name is ifName, else ifDescr, else the number."""
    names, descrs = answers.octets(IF_NAME, 1), answers.octets(IF_DESCR, 1)
    types, aliases = answers.numbers(IF_TYPE, 1), answers.octets(IF_ALIAS, 1)
    addresses, links = answers.octets(IF_PHYS_ADDRESS, 1), answers.numbers(IF_OPER_STATUS, 1)
    found: dict[int, Interface] = {}
    for index in sorted({*names, *descrs, *types}):
        descr = words(descrs.get(index))
        found[index[0]] = Interface(
            index[0], words(names.get(index)) or descr or str(index[0]), descr,
            words(aliases.get(index)), types.get(index), mac(addresses.get(index)),
            _has_link(links.get(index)),
        )
    return found


def _has_link(status: int | None) -> bool | None:
    if status in _UP:
        return True
    return False if status in _DOWN else None


def own_addresses(answers: Answers) -> frozenset[str]:
    """Return the addresses that are the switch's own: by them others know it too."""
    values = [*answers.octets(IF_PHYS_ADDRESS, 1).values(), answers.get((*BASE_ADDRESS, 0))]
    return frozenset(address for address in map(mac, values) if address is not None)


def bridge_ports(answers: Answers) -> dict[int, int]:
    """Return the ifIndex of each bridge port (dot1dBasePortIfIndex)."""
    ports = answers.numbers(BASE_PORT_IF_INDEX, 1)
    return {port: index for (port,), index in ports.items() if port > 0 and index > 0}


def aggregates(answers: Answers, known: Mapping[int, Interface]) -> dict[int, int]:
    """Return the ifIndex of the aggregate that each member belongs to."""
    rows: dict[Oid, int] = answers.numbers(AGGREGATE_OF, 1)
    return {
        member: whole for (member,), whole in rows.items()
        if member in known and whole in known and member != whole
    }
