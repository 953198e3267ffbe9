"""Builds what knows, boots and reaches the nodes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zope.interface import implementer

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
from walt.server.assembly.switches import LateRegistration, Switches, build_switches
from walt.server.domain.devices.model import Device
from walt.server.domain.network.expose import ExposedPorts
from walt.server.domain.nodes.configuration import Configuration
from walt.server.domain.nodes.files import NodeFiles, close_with_nodes
from walt.server.domain.nodes.keys import UserKeys
from walt.server.domain.nodes.monitor import LATE_BOOT, BootMonitor
from walt.server.domain.nodes.ports import IVirtualMachines
from walt.server.domain.nodes.progress import BootProgress
from walt.server.domain.nodes.reboot import Rebooter
from walt.server.domain.nodes.registration import Registration
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.nodes.service import NodeService
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.nodes.views import NodeViews
from walt.server.domain.services.provisioning import Provisioning
from walt.server.domain.switches.saving import PowerSaving
from walt.server.domain.virtual.addresses import FreeAddresses
from walt.server.domain.virtual.service import VirtualNodes
from walt.server.runtime.ordered import spawn

FORMER_KEY = Path("/root/.ssh/id_rsa")  # nodes knew older servers by root's own


@dataclass(frozen=True)
class Nodes:
    """The services of nodes."""

    status: BootStatus
    views: NodeViews
    reservations: Reservations
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


@implementer(IVirtualMachines)
class _Machines:
    """Breaks the circle between reboots and virtual nodes."""

    virtual: VirtualNodes | None = None

    def kill(self, mac: str) -> bool:
        """End the machine of a node."""
        return self.virtual is not None and self.virtual.kill(mac)


def build_nodes(
    base: Base, daemons: Daemons, images: Images,
    host_network: Callable[[], AbstractContextManager[Any]],
) -> Nodes:
    """Build and join these objects; `host_network` as in `assembly.core.build`."""
    reactor, launcher, config = base.reactor, base.launcher, base.config
    registry, logs, platform = base.registry, base.logs, base.platform
    status = BootStatus(registry, base.device_store, platform, reactor, config.reconnect_grace)
    progress = BootProgress(
        reactor, registry, base.boot_store, status.is_booted, images.service.digest
    )
    status.listen(progress.on_status)
    logs.watch("walt-init", progress.init_lines)
    daemons.leases.progress = progress
    status.image_content = lambda node: images.service.content(node.image)
    provisioning = Provisioning(
        reactor, registry, images.service, images.mounter, daemons.exporter, base.volumes,
        daemons.network, platform, config.paths.nodes,
    )

    late = LateRegistration()
    switches = build_switches(base, late)
    power, machines, link = switches.power, _Machines(), NodeLink(reactor)
    rebooter = Rebooter(base.workflows, status, link, power, machines, provisioning, platform)

    def reboot_late(late: list[Device]) -> None:
        spawn(
            rebooter.reboot(
                late, requester=None, hard_only=True, cause=LATE_BOOT, reset_retries=False
            ),
            "rebooting late nodes",
        )

    monitor = rebooter.monitor = BootMonitor(registry, status, platform, reactor, reboot_late)
    monitor.on_start = progress.started

    def gave_up(mac: str, reason: str | None) -> None:
        provisioning.machine_trouble(mac, reason)
        if reason is not None:
            progress.gave_up(mac, reason)

    monitor.gave_up = gave_up
    registration = Registration(registry, images.service, base.workflows, platform, monitor)
    daemons.leases.registration = late.registration = registration
    service = NodeService(
        registry, images.service, status, monitor, rebooter, logs, link, platform,
        provisioning, progress, reactor,
    )

    reservations = Reservations(reactor)
    service.on_forget(lambda device: reservations.forget(device.mac))
    saving = PowerSaving(
        registry, power, switches.exploration, status, monitor, reservations, platform, reactor,
        config.power_saving,
    )
    rebooter.on_use, service.wake = saving.used, saving.wake
    service.let_go = saving.let_go

    ssh_options = node_options(
        config.paths.state / "ssh" / "known_hosts.nodes", *_keys(config.paths.state)
    )
    questions = KeptShells(reactor, launcher, ssh_options)
    close_with_nodes(questions, registry, status, service)
    shell = SshNodeShell(base.runner, ssh_options)
    keys = UserKeys(registry, PostgresUserKeys(base.database), shell, status, platform)
    status.listen(keys.on_status)
    service.on_forget(lambda device: keys.forget(device.mac))
    exposed = ExposedPorts(
        Forwards(reactor, opening=host_network),
        lambda line: platform.write("expose", line, error=True),
    )
    hypervisor = QemuHypervisor(
        reactor, launcher, base.taps, config.paths.runtime / "vnodes", config.accel,
        base.workers, config.paths.nodes,
    )
    monitor.emulated = lambda device: device.virtual and hypervisor.emulates
    chance = random.SystemRandom()
    virtual = machines.virtual = VirtualNodes(
        registry, service, status, monitor, images.service, provisioning, hypervisor,
        FreeAddresses(registry, config.server_ip, chance), logs, platform,
        reactor, images.service.give_default, chance,
    )
    return Nodes(
        status=status,
        views=NodeViews(registry, status, power, provisioning, progress, reservations),
        reservations=reservations,
        progress=progress, switches=switches, saving=saving, provisioning=provisioning,
        rebooter=rebooter, monitor=monitor, registration=registration, service=service,
        configuration=Configuration(
            registry, service, monitor, images.service, exposed, logs, platform,
            memory_of_this_machine(), os.cpu_count() or 1,
        ),
        exposed=exposed, virtual=virtual, shell=shell,
        questions=questions, sessions=SshSessions(reactor, launcher, ssh_options),
        files=NodeFiles(service, questions), keys=keys,
    )


def _keys(state: Path) -> list[Path]:
    """Return the keys to nodes. Those that an older server booted know it by root's own, as
    long as they run: it is offered until the next start, when all have the platform's.
    """
    key = node_key(state)
    older = (state / "ssh").exists() and not key.exists() and FORMER_KEY.exists()
    return [key, FORMER_KEY] if older else [key]
