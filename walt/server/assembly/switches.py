"""Builds what asks switches, and what switches the power of their ports."""

from __future__ import annotations

import time
from typing import NamedTuple

from walt.common.leases import Sighting
from walt.server.adapters.postgres.switches import PostgresSwitches
from walt.server.adapters.snmp.switches import SnmpSwitches
from walt.server.assembly.base import Base
from walt.server.config.model import ServerConfig
from walt.server.domain.nodes.registration import Registration
from walt.server.domain.switches.exploration import Exploration
from walt.server.domain.switches.interfaces import SnmpTarget
from walt.server.domain.switches.power import SwitchPower
from walt.server.domain.switches.views import SwitchViews
from walt.server.runtime.workers import WorkerPool

SNMP_WORKERS = 3  # a long reading delays no port


class Switches(NamedTuple):
    """The services of switches."""

    exploration: Exploration
    power: SwitchPower
    views: SwitchViews
    workers: WorkerPool


def _own(config: ServerConfig) -> SnmpTarget | None:
    """Return how our own snmpd is asked for the neighbours of the server."""
    if not config.services.lldp:
        return None
    return SnmpTarget(str(config.server_ip), 2, config.services.snmp_community)


def build_switches(base: Base, registration: Registration) -> Switches:
    """Build and join these objects."""
    workers = WorkerPool(base.reactor, base.launcher, size=SNMP_WORKERS, unprivileged=["snmp"])
    switches, store = SnmpSwitches(workers), PostgresSwitches(base.database)

    async def register(mac: str, ip: str | None, name: str) -> None:
        await registration.register(Sighting(mac, ip, name=name))

    exploration = Exploration(
        base.registry, switches, store, base.platform, time.time, register, _own(base.config)
    )
    power = SwitchPower(
        base.registry, exploration, switches, store, base.platform, base.reactor
    )
    return Switches(
        exploration, power, SwitchViews(base.registry, exploration, power, time.time), workers
    )
