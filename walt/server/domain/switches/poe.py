"""Power of ports (PoE): which interface each port of the power supply is, with proof.

No port is ever switched on a guess: where nothing proves which interface is meant, the port is
refused with the reason. Counting ports of both tables in order proves nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from walt.server.domain.switches.numbering import Numbering
from walt.server.domain.switches.snmp_interfaces import ETHERNET
from walt.server.domain.switches.tables import Answers, Oid, oid

# POWER-ETHERNET-MIB (RFC 3621), pethPsePortTable, and Netgear's copy of it.
STANDARD = oid("1.3.6.1.2.1.105.1.1.1")
NETGEAR = oid("1.3.6.1.4.1.4526.11.16.1.1.1")
ADMIN, DETECTION = 3, 6
TRUE, FALSE = 1, 2  # TruthValue of RFC 2579
DELIVERING = 3  # pethPsePortDetectionStatus deliveringPower
# TPLINK-POWER-OVER-ETHERNET-MIB, tpPoePortConfigTable.
TPLINK = oid("1.3.6.1.4.1.11863.6.56.1.1.2.1.1")
TPLINK_STATUS, TPLINK_POWER = 2, 11
TPLINK_ON, TPLINK_OFF, TPLINK_DELIVERS = 1, 0, 2
# Cisco: the port as a part of the machine (CISCO-POWER-ETHERNET-EXT-MIB), and the interface
# of that part (ENTITY-MIB, RFC 6933).
CISCO_PART = oid("1.3.6.1.4.1.9.9.402.1.2.1.11")
ENTITY_ALIAS = oid("1.3.6.1.2.1.47.1.3.2.1.2")
IF_INDEX = oid("1.3.6.1.2.1.2.2.1.1")
SYS_OBJECT_ID = oid("1.3.6.1.2.1.1.2.0")
JUNIPER = oid("1.3.6.1.4.1.2636")

BY_PARTS = "the switch names the interface of this part (ENTITY-MIB)"
BY_MAKER = "numbering of the maker"
BY_NUMBER = "its number is the number of the interface"
BY_PANEL = "its number is LLDP's and ends the name of the interface"


@dataclass(frozen=True)
class PowerPort:
    """A port of the power supply.

    `control` is the object that switches it, `on` and `off` its values; `interface` is the
    ifIndex that `by` proves, or None, and `refused` says why.
    """

    index: Oid
    control: Oid
    on: int
    off: int
    is_on: bool
    delivers: bool
    interface: int | None = None
    by: str | None = None
    refused: str | None = None


def power_ports(answers: Answers, numbering: Numbering) -> list[PowerPort]:
    """Return the ports of the power supply; of several tables of a switch, the first filled."""
    ports = _tplink(answers) or _standard(answers, STANDARD) or _standard(answers, NETGEAR)
    return _proved(ports, answers, numbering)


def _tplink(answers: Answers) -> list[PowerPort]:
    power = answers.numbers((*TPLINK, TPLINK_POWER), 1)
    return [
        PowerPort(
            index, (*TPLINK, TPLINK_STATUS, *index), TPLINK_ON, TPLINK_OFF,
            status == TPLINK_ON, power.get(index) == TPLINK_DELIVERS,
        )
        for index, status in answers.numbers((*TPLINK, TPLINK_STATUS), 1).items()
        if status in (TPLINK_ON, TPLINK_OFF)
    ]


def _standard(answers: Answers, table: Oid) -> list[PowerPort]:
    detection = answers.numbers((*table, DETECTION), 2)
    return [
        PowerPort(
            index, (*table, ADMIN, *index), TRUE, FALSE,
            admin == TRUE, detection.get(index) == DELIVERING,
        )
        for index, admin in answers.numbers((*table, ADMIN), 2).items()
        if admin in (TRUE, FALSE)
    ]


def _proved(
    ports: list[PowerPort], answers: Answers, numbering: Numbering
) -> list[PowerPort]:
    """Give each port its interface where all proofs say the same one, and no other port's."""
    rules: list[tuple[str, Callable[[Oid], int | None]]] = [
        (BY_PARTS, _by_parts(answers, numbering)),
        (BY_MAKER, _by_maker(answers, numbering)),
    ]
    if len({port.index[:-1] for port in ports}) == 1:
        if _numbers_are_interfaces([port.index[-1] for port in ports], numbering):
            rules.append((BY_NUMBER, lambda index: index[-1]))
        else:
            rules.append((BY_PANEL, lambda index: numbering.panel(index[-1])))
    found = []
    for port in ports:
        proofs = [(by, index) for by, rule in rules if (index := rule(port.index)) is not None]
        if not proofs:
            reason = "the switch does not tell which interface this port of its power supply is"
            found.append(replace(port, refused=reason))
        elif len({index for _, index in proofs}) > 1:
            names = " and ".join(numbering.interfaces[index].name for _, index in proofs)
            found.append(replace(port, refused=f"the tables of the switch disagree: {names}"))
        else:
            found.append(replace(port, by=proofs[0][0], interface=proofs[0][1]))
    uses = Counter(port.interface for port in found)
    return [
        replace(port, interface=None, by=None, refused=(
            "the switch gives several ports of its power supply the same interface"
        )) if port.interface is not None and uses[port.interface] > 1 else port
        for port in found
    ]


def _by_parts(answers: Answers, numbering: Numbering) -> Callable[[Oid], int | None]:
    parts, aliases = answers.numbers(CISCO_PART, 2), _interfaces_of_parts(answers)

    def rule(index: Oid) -> int | None:
        interface = aliases.get(parts.get(index, 0))
        return interface if interface in numbering.interfaces else None

    return rule


def _interfaces_of_parts(answers: Answers) -> Mapping[int, int]:
    """Return the ifIndex of each part of the machine that is one interface."""
    found: dict[int, int] = {}
    several = set()
    for (part, _), name in answers.oids(ENTITY_ALIAS, 2).items():
        if name[:-1] != IF_INDEX:
            continue
        if found.setdefault(part, name[-1]) != name[-1]:
            several.add(part)
    return {part: index for part, index in found.items() if part not in several}


def is_juniper(answers: Answers) -> bool:
    """Tell whether Juniper made the switch."""
    object_id = answers.get(SYS_OBJECT_ID)
    return isinstance(object_id, tuple) and object_id[:len(JUNIPER)] == JUNIPER


def _by_maker(answers: Answers, numbering: Numbering) -> Callable[[Oid], int | None]:
    """Juniper EX: port P of group G is `ge-(G-1)/0/(P-1)`, of whatever speed."""
    names = [
        (interface.name, interface.index)
        for interface in numbering.interfaces.values() if is_juniper(answers)
    ]

    def rule(index: Oid) -> int | None:
        if len(index) != 2 or not names:
            return None
        name = re.compile(rf"(fe|ge|mge|xe)-{index[0] - 1}/0/{index[1] - 1}")
        found = [interface for text, interface in names if name.fullmatch(text)]
        return found[0] if len(found) == 1 else None

    return rule


def _numbers_are_interfaces(numbers: list[int], numbering: Numbering) -> bool:
    """Tell whether the power supply counts ports by ifIndex.

    All are Ethernet interfaces, no other numbering of the switch has one of these numbers for
    another interface; and they are no mere count 1, 2, 3 …, unless another numbering of the
    switch counts all of them so.
    """
    known = numbering.interfaces
    if not all(n in known and known[n].type == ETHERNET for n in numbers):
        return False
    local = {n: port.interface for n, port in numbering.local.items() if port.interface is not None}
    if any(table.get(n, n) != n for table in (local, numbering.bridge) for n in numbers):
        return False
    if min(numbers) > len(numbers):
        return True
    return any(all(n in table for n in numbers) for table in (local, numbering.bridge))
