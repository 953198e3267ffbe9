"""Cables between switches: what their neighbours' tables say from both ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from walt.server.domain.switches.lldp import Neighbour
from walt.server.domain.switches.survey import Port, Survey
from walt.server.domain.switches.tables import mac

End = tuple[str, int]  # key of a switch, ifIndex


def remote_port(switch: Survey, seen: Neighbour) -> int | None:
    """Return the ifIndex of the port of a switch that a neighbour of it says it sees."""
    ports = switch.ports.values()
    address = mac(seen.remote_port.encode()) if seen.remote_port_type == "macAddress" else None
    # Some switches give that of the whole machine for each port.
    is_machine = address is not None and address == seen.mac
    # RouterOS puts its bridge before the name: `bridge/ether1`. Numbers are no names of ports.
    last = seen.remote_port.rpartition("/")[2]
    texts = (seen.remote_port, seen.remote_description, last if last[:1].isalpha() else "")
    rules: list[Callable[[Port], bool]] = [
        lambda port: bool(port.label) and port.label == seen.remote_port and not is_machine,
        *(partial(_is_named, text) for text in texts if text),
        lambda port: address is not None and port.mac == address and not is_machine,
    ]
    for rule in rules:
        found = [port.index for port in ports if rule(port)]
        if len(found) == 1:
            return found[0]
    return None


def _is_named(text: str, port: Port) -> bool:
    return text in (port.name, port.descr)


class Cable(NamedTuple):
    """Two ends, the smaller first; `both` tells whether each of them sees the other.

    `named`: one of them tells the port of the other one; else it follows from each of them
    seeing the other at one port alone.
    """

    ends: tuple[End, End]
    both: bool
    named: bool = True


def cables(switches: Mapping[str, Survey]) -> list[Cable]:
    """Return the cables between these switches, in the order of their ends.

    A neighbour is the switch that has its address, or else the only one of its name: some
    give each cable another address. Parallel cables are several. What cannot be placed on a
    port at both ends is no cable here.
    """
    reports: dict[tuple[End, End], set[str]] = {}
    heard: dict[tuple[str, str], set[int]] = {}
    for key, switch in switches.items():
        for seen in switch.neighbours:
            other = who(seen, switches)
            if seen.is_self or other is None or other == key or (
                seen.interface is None or seen.interface not in switch.ports
            ):
                continue
            heard.setdefault((key, other), set()).add(seen.interface)
            there = remote_port(switches[other], seen)
            if there is not None:
                first, second = sorted([(key, seen.interface), (other, there)])
                reports.setdefault((first, second), set()).add(key)
    alone = _alone(heard, reports)
    return [
        Cable(ends, ends in alone or len(reports[ends]) == 2, ends in reports)
        for ends in sorted({*alone, *reports})
    ]


def _alone(
    heard: Mapping[tuple[str, str], set[int]], reports: Mapping[tuple[End, End], set[str]]
) -> set[tuple[End, End]]:
    """Return the cables of switches that see each other at one port each.

    Whatever they call the port of the other one, it is the one where that one sees them; unless
    one of them names another port.
    """
    named: dict[tuple[str, str], set[tuple[End, End]]] = {}
    for ends in reports:
        named.setdefault((ends[0][0], ends[1][0]), set()).add(ends)
    found = set()
    for (one, other), ports in heard.items():
        back = heard.get((other, one), set())
        if one < other and len(ports) == len(back) == 1:
            ends = ((one, min(ports)), (other, min(back)))
            if named.get((one, other), {ends}) == {ends}:
                found.add(ends)
    return found


def who(seen: Neighbour, switches: Mapping[str, Survey]) -> str | None:
    """Return the switch that a neighbour is, None when it is none of them or cannot be told."""
    found = [
        key for key, switch in switches.items()
        if seen.mac is not None and seen.mac in switch.addresses
    ]
    if not found and seen.name:
        found = [key for key, switch in switches.items() if switch.name == seen.name]
    return found[0] if len(found) == 1 else None
