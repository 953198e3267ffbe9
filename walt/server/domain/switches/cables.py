"""Cables between switches: what their neighbours' tables say from both ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from walt.server.domain.switches.lldp import Neighbour
from walt.server.domain.switches.survey import Survey
from walt.server.domain.switches.tables import mac

End = tuple[str, int]  # key of a switch, ifIndex


def remote_port(switch: Survey, seen: Neighbour) -> int | None:
    """Return the ifIndex of the port of a switch that a neighbour of it says it sees."""
    ports = switch.ports.values()
    for text in (seen.remote_port, seen.remote_description):
        found = [one.index for one in ports if text and text in (one.name, one.descr)]
        if len(found) == 1:
            return found[0]
    address = mac(seen.remote_port.encode()) if seen.remote_port_type == "macAddress" else None
    found = [one.index for one in ports if address is not None and one.mac == address]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Cable:
    """Two ends, the smaller first; `both` tells whether each of them sees the other."""

    ends: tuple[End, End]
    both: bool


def cables(switches: Mapping[str, Survey]) -> list[Cable]:
    """Return the cables between these switches, in the order of their ends.

    A neighbour is the switch that has its address, or else the only one of its name: some
    give each cable another address. Parallel cables are several. What cannot be placed on a
    port at both ends is no cable here.
    """
    reports: dict[tuple[End, End], set[str]] = {}
    for key, switch in switches.items():
        for seen in switch.neighbours:
            other = who(seen, switches)
            if seen.is_self or other is None or other == key or (
                seen.interface is None or seen.interface not in switch.ports
            ):
                continue
            there = remote_port(switches[other], seen)
            if there is not None:
                first, second = sorted([(key, seen.interface), (other, there)])
                reports.setdefault((first, second), set()).add(key)
    return [Cable(ends, len(by) == 2) for ends, by in sorted(reports.items())]


def who(seen: Neighbour, switches: Mapping[str, Survey]) -> str | None:
    """Return the switch that a neighbour is, None when it is none of them or cannot be told."""
    found = [
        key for key, one in switches.items() if seen.mac is not None and seen.mac in one.addresses
    ]
    if not found and seen.name:
        found = [key for key, one in switches.items() if one.name == seen.name]
    return found[0] if len(found) == 1 else None
