"""Builds what knows, boots and reaches the nodes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from walt.server.adapters.network.forwards import Forwards
from walt.server.adapters.nodelink.client import NodeLink
from walt.server.adapters.postgres.user_keys import PostgresUserKeys
from walt.server.adapters.qemu.hypervisor import QemuHypervisor
from walt.server.adapters.qemu.memory import memory_of_this_machine
from walt.server.adapters.ssh.kept import KeptShells
from walt.server.adapters.ssh.keys import node_key
from walt.server.adapters.ssh.options import node_options
from walt.server.adapters.ssh.sessions import SshSessions
from walt.server.adapters.ssh.shell import SshNodeShell
from walt.server.assembly.base import Base
from walt.server.assembly.daemons import Daemons
from walt.server.assembly.images import Images
from walt.server.assembly.switches import Switches, build_switches
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.network.expose import ExposedPorts
from walt.server.domain.network_services.provisioning import Provisioning
from walt.server.domain.nodes.actions import NodeService
from walt.server.domain.nodes.announcements import LeaseBook
from walt.server.domain.nodes.configuration import Configuration
from walt.server.domain.nodes.experiments import RunningExperiments
from walt.server.domain.nodes.files import NodeFiles, close_with_nodes
from walt.server.domain.nodes.keys import UserKeys
from walt.server.domain.nodes.monitor import BootMonitor
from walt.server.domain.nodes.plans import OpenSessions
from walt.server.domain.nodes.progress import BootProgress
from walt.server.domain.nodes.reboot import Rebooter
from walt.server.domain.nodes.registration import Registration
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.nodes.views import NodeViews
from walt.server.domain.switches.saving import PowerSaving
from walt.server.domain.virtual.addresses import FreeAddresses
from walt.server.domain.virtual.machines import RunningMachines, VirtualNodes

FORMER_KEY = Path("/root/.ssh/id_rsa")  # nodes knew older servers by root's own


class Nodes(NamedTuple):
    """The services of nodes."""

    status: BootStatus
    views: NodeViews
    reservations: Reservations
    experiments: RunningExperiments
    leases: LeaseBook
    progress: BootProgress
    switches: Switches
    saving: PowerSaving
    provisioning: Provisioning
    rebooter: Rebooter
    monitor: BootMonitor
    registration: Registration
    service: NodeService
    configuration: Configuration
    exposed: ExposedPorts
    virtual: VirtualNodes
    shell: SshNodeShell
    questions: KeptShells
    sessions: SshSessions
    files: NodeFiles
    keys: UserKeys
    open_sessions: OpenSessions
    new_mac: Callable[[], str]


def build_nodes(
    base: Base, daemons: Daemons, images: Images,
    host_network: Callable[[], AbstractContextManager[object]],
) -> Nodes:
    """Build and join these objects; `host_network` as in `assembly.core.build`."""
    reactor, launcher, config = base.reactor, base.launcher, base.config
    registry, logs, platform = base.registry, base.logs, base.platform
    status = BootStatus(
        registry, base.device_store, platform, reactor, config.reconnect_grace,
        lambda node: images.service.content(node.image),
    )
    progress = BootProgress(
        reactor, registry, base.boot_store, status.is_booted, images.service.digest
    )
    provisioning = Provisioning(
        reactor, registry, images.service, images.mounter, daemons.exports, base.volumes,
        daemons.network, platform, config.paths.nodes,
    )
    hypervisor = QemuHypervisor(
        reactor, launcher, base.taps, config.paths.runtime / "vnodes", config.accel,
        base.workers, config.paths.nodes,
    )

    def emulated(device: Device) -> bool:
        return device.virtual and hypervisor.emulates

    monitor = BootMonitor(registry, status, platform, reactor, emulated)
    registration = Registration(
        registry, images.service, images.defaults, base.workflows, platform, monitor
    )
    leases, reservations = LeaseBook(), Reservations(reactor)
    switches = build_switches(base, registration)
    power, machines, link = switches.power, RunningMachines(), NodeLink(reactor)
    rebooter = Rebooter(
        base.workflows, status, link, power, machines, provisioning, monitor, platform
    )
    saving = PowerSaving(
        registry, power, switches.exploration, status, monitor, reservations, platform, reactor,
        config.power_saving,
    )
    service = NodeService(
        registry, images.service, status, monitor, rebooter, logs, link, platform,
        provisioning, progress, saving, reactor,
    )
    # Who hears of what.
    logs.watch("walt-init", progress.init_lines)
    daemons.dhcpd.leases.observe(leases.leased)
    daemons.dhcpd.leases.observe(registration.leased)
    daemons.dhcpd.former.observe(leases.leased)
    daemons.dhcpd.former.observe(registration.found)
    daemons.dhcpd.offers.observe(daemons.network.offered)
    daemons.dhcpd.addresses.observe(progress.got_address)
    daemons.dhcpd.addresses.observe(provisioning.begins)
    status.changed.observe(progress.on_status)
    monitor.begun.observe(progress.started)
    monitor.late.observe(rebooter.reboot_late)
    monitor.given_up.observe(provisioning.machine_trouble)
    monitor.given_up.observe(progress.gave_up)
    rebooter.used.observe(saving.used)
    service.forgotten.observe(lambda device: reservations.forget(device.mac))

    ssh_options = node_options(
        config.paths.state / "ssh" / "known_hosts.nodes", *_keys(config.paths.state)
    )
    questions = KeptShells(reactor, launcher, ssh_options)
    close_with_nodes(questions, registry, status, service)
    shell = SshNodeShell(base.runner, ssh_options)
    keys = UserKeys(
        registry, PostgresUserKeys(base.database), shell, status, platform, base.keys.host_line
    )
    status.changed.observe(keys.on_status)
    service.forgotten.observe(lambda device: keys.forget(device.mac))
    exposed = ExposedPorts(
        Forwards(reactor, opening=host_network),
        lambda line: platform.write("expose", line, error=True),
    )
    chance = random.SystemRandom()
    addresses = FreeAddresses(registry, config.server_ip, chance)
    virtual = VirtualNodes(
        registry, service, status, monitor, images.service, images.defaults, provisioning,
        hypervisor, addresses, logs, platform,
        reactor, images.service.give_default, chance, machines,
    )
    return Nodes(
        status=status,
        views=NodeViews(
            registry, status, power, provisioning, progress, reservations, emulated, reactor
        ),
        reservations=reservations, leases=leases,
        experiments=RunningExperiments(reactor, lambda name: _is_node(registry, name)),
        progress=progress, switches=switches, saving=saving, provisioning=provisioning,
        rebooter=rebooter, monitor=monitor, registration=registration, service=service,
        configuration=Configuration(
            registry, service, monitor, images.service, exposed, logs, platform,
            memory_of_this_machine(), os.cpu_count() or 1, reactor,
        ),
        exposed=exposed, virtual=virtual, shell=shell,
        questions=questions, sessions=SshSessions(reactor, launcher, ssh_options),
        files=NodeFiles(service, questions), keys=keys, open_sessions=OpenSessions(reactor),
        new_mac=addresses.new_mac,
    )


def _is_node(registry: DeviceRegistry, name: str) -> bool:
    device = registry.by_name(name)
    return device is not None and device.is_node


def _keys(state: Path) -> list[Path]:
    """Return the keys to nodes. Those that an older server booted know it by root's own, as
    long as they run: it is offered until the next start, when all have the platform's.
    """
    key = node_key(state)
    older = (state / "ssh").exists() and not key.exists() and FORMER_KEY.exists()
    return [key, FORMER_KEY] if older else [key]
