"""Forwarding tables: which addresses a switch has seen on which port."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from walt.server.domain.switches.numbering import Numbering
from walt.server.domain.switches.tables import Answers, mac_of_index, oid

Q_PORT = oid("1.3.6.1.2.1.17.7.1.2.2.1.2")  # dot1qTpFdbPort, RFC 4363
Q_STATUS = oid("1.3.6.1.2.1.17.7.1.2.2.1.3")
D_PORT = oid("1.3.6.1.2.1.17.4.3.1.2")  # dot1dTpFdbPort, RFC 4188
D_STATUS = oid("1.3.6.1.2.1.17.4.3.1.3")
VLAN_FDB = oid("1.3.6.1.2.1.17.7.1.4.2.1.3")  # dot1qVlanFdbId: time mark, VLAN

LEARNED = 3


class Seen(NamedTuple):
    """An address behind a port; `port` as the bridge numbers it, `table` an id of RFC 4363.

    `status` is None where the switch has no such column.
    """

    mac: str
    port: int
    interface: int | None = None
    table: int | None = None
    status: int | None = None


def seen(answers: Answers, numbering: Numbering) -> list[Seen]:
    """Return all rows of the table by VLAN, or of the older one when there is none."""
    statuses = answers.numbers(Q_STATUS, 7)
    found = [
        Seen(mac, port, numbering.of_bridge(port), index[0], statuses.get(index))
        for index, port in answers.numbers(Q_PORT, 7).items()
        if (mac := mac_of_index(index[1:])) is not None
    ]
    if found:
        return found
    statuses = answers.numbers(D_STATUS, 6)
    return [
        Seen(mac, port, numbering.of_bridge(port), None, statuses.get(index))
        for index, port in answers.numbers(D_PORT, 6).items()
        if (mac := mac_of_index(index)) is not None
    ]


def behind(rows: Iterable[Seen]) -> dict[int, frozenset[str]]:
    """Return the addresses behind each interface: those that the switch learned there.

    A row without status counts, one of another status (its own addresses, set by hand) does
    not, nor one on port 0, which is the switch itself.
    """
    found: dict[int, set[str]] = {}
    for row in rows:
        if row.interface is not None and row.port > 0 and row.status in (None, LEARNED):
            found.setdefault(row.interface, set()).add(row.mac)
    return {interface: frozenset(macs) for interface, macs in found.items()}


def tables_of_vlans(answers: Answers) -> dict[int, int]:
    """Return the id of the forwarding table of each VLAN, which is not always the VLAN's."""
    return {vlan: table for (_, vlan), table in answers.numbers(VLAN_FDB, 2).items()}
