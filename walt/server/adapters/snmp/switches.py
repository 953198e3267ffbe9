"""Switches asked by SNMP, in a worker of their own."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Any

from zope.interface import implementer

from walt.common.errors import WaltError
from walt.server.domain.switches import bridge, lldp, numbering, poe, snmp_interfaces
from walt.server.domain.switches.interfaces import ISwitches, SnmpTarget
from walt.server.domain.switches.survey import Survey
from walt.server.domain.switches.tables import Oid, oid
from walt.server.runtime.workers import WorkerPool

# CISCO-VTP-MIB vtpVlanState.
_VLAN_STATES, _OPERATIONAL = oid("1.3.6.1.4.1.9.9.46.1.3.1.1.2"), 1
BY_VLAN = (snmp_interfaces.BASE_PORT_IF_INDEX, bridge.D_PORT, bridge.D_STATUS)

# TP-Link's power comes first: after other tables some of its switches do not answer it.
ROOTS: tuple[Oid, ...] = (
    (*poe.TPLINK, poe.TPLINK_STATUS), (*poe.TPLINK, poe.TPLINK_POWER),
    poe.SYS_OBJECT_ID[:-1],
    snmp_interfaces.IF_DESCR, snmp_interfaces.IF_TYPE, snmp_interfaces.IF_PHYS_ADDRESS,
    snmp_interfaces.IF_OPER_STATUS,
    snmp_interfaces.IF_NAME, snmp_interfaces.IF_ALIAS, snmp_interfaces.AGGREGATE_OF,
    snmp_interfaces.BASE_ADDRESS,
    lldp.LOCAL_CHASSIS_ID[:-1], lldp.SYS_NAME_OF_SELF[:-1],
    numbering.LOC_PORT_SUBTYPE, numbering.LOC_PORT_ID, numbering.LOC_PORT_DESC,
    lldp.CHASSIS_SUBTYPE, lldp.CHASSIS_ID, lldp.PORT_SUBTYPE, lldp.PORT_ID, lldp.PORT_DESC,
    lldp.SYS_NAME, (*lldp.MANAGEMENT, 3), lldp.TPLINK, lldp.TPLINK_LOCAL,
    *((*table, column) for table in (poe.STANDARD, poe.NETGEAR)
      for column in (poe.ADMIN, poe.DETECTION)),
    poe.CISCO_PART, poe.ENTITY_ALIAS,
    bridge.VLAN_FDB, bridge.Q_PORT, bridge.Q_STATUS, *BY_VLAN, _VLAN_STATES,
)
FORWARDING = (bridge.Q_PORT, bridge.Q_STATUS, bridge.D_PORT, bridge.D_STATUS)
_KEPT = 1000  # switches whose repetitions are remembered


@implementer(ISwitches)
class SnmpSwitches:
    """Asks by the job `snmp` of a pool of workers."""

    def __init__(self, workers: WorkerPool, **limits: float) -> None:
        self._workers = workers
        self._limits = limits
        self._repetitions: OrderedDict[tuple[str, int], int] = OrderedDict()

    async def read(
        self, targets: Sequence[SnmpTarget], known: Collection[str] = (),
        on_read: Callable[[int, Survey], None] | None = None,
    ) -> list[Survey]:
        """Return what each target told; see ISwitches."""
        found: dict[int, Survey] = {}

        def on_progress(text: str) -> None:
            told = json.loads(text)
            place = told["place"]
            self._remember((targets[place].host, targets[place].port), told["repetitions"])
            found[place] = Survey.of_words(told["survey"])
            if on_read is not None:
                on_read(place, found[place])

        failure = "it was not read"
        try:
            await self._workers.call(
                "snmp:read",
                {
                    "targets": [self._words(target) for target in targets], "roots": ROOTS,
                    "large": FORWARDING, "probe": poe.SYS_OBJECT_ID, "known": list(known),
                    "vlans": {
                        "states": _VLAN_STATES, "operational": _OPERATIONAL, "roots": BY_VLAN,
                        "unless": [bridge.Q_PORT],
                    },
                    **self._limits,
                },
                on_progress=on_progress,
            )
        except WaltError as error:  # what was told by then stays
            failure = f"{failure}: {error}"
        for place in range(len(targets)):
            if place not in found:
                found[place] = Survey(failure=failure)
                if on_read is not None:
                    on_read(place, found[place])
        return [found[place] for place in range(len(targets))]

    async def set(self, target: SnmpTarget, control: Oid, value: int) -> int | None:
        """Set a whole number; see ISwitches."""
        found: int | None = await self._workers.call(
            "snmp:put",
            {"target": self._words(target), "name": control, "value": value, **self._limits},
        )
        return found

    def _words(self, target: SnmpTarget) -> dict[str, Any]:
        words: dict[str, Any] = {
            "host": target.host, "port": target.port, "version": target.version,
            "community": target.community,
            "user": None if target.user is None else asdict(target.user),
        }
        known = self._repetitions.get((target.host, target.port))
        return words if known is None or target.version == 1 else {**words, "repetitions": known}

    def _remember(self, place: tuple[str, int], repetitions: int) -> None:
        self._repetitions[place] = repetitions
        self._repetitions.move_to_end(place)
        if len(self._repetitions) > _KEPT:
            self._repetitions.popitem(last=False)

