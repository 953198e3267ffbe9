"""Builds the domain services of a server and joins them (no start, no stop)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zope.interface import implementer

from walt.server.adapters.dhcpd.service import DhcpdService
from walt.server.adapters.named.service import NamedService
from walt.server.adapters.nbdkit.service import SwapService
from walt.server.adapters.network.forwards import Forwards
from walt.server.adapters.network.links import LinkPlan, Links
from walt.server.adapters.network.taps import Taps
from walt.server.adapters.nfs import ganesha, kernel
from walt.server.adapters.nftables.firewall import NftFirewall
from walt.server.adapters.nodelink.client import NodeLink
from walt.server.adapters.podman.mounter import OverlayMounter
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.postgres.checkpoints import PostgresCheckpoints
from walt.server.adapters.postgres.cluster import Cluster
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.images import PostgresImages
from walt.server.adapters.postgres.logs import PostgresLogs
from walt.server.adapters.postgres.topology import PostgresTopology
from walt.server.adapters.qemu.hypervisor import QemuHypervisor
from walt.server.adapters.ssh.kept import KeptShells
from walt.server.adapters.ssh.options import node_options
from walt.server.adapters.ssh.sessions import SshSessions
from walt.server.adapters.ssh.shell import SshNodeShell
from walt.server.adapters.tftpd.boot_files import BootFiles
from walt.server.adapters.tftpd.service import TftpdService
from walt.server.adapters.tftpd.tree import BootTreeStore
from walt.server.api.context import Context
from walt.server.assembly.access import Certificates
from walt.server.assembly.client_package import ClientPackage
from walt.server.assembly.images import ImageLife, image_life
from walt.server.config.model import WALT_NET, ServerConfig
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.facts import Facts
from walt.server.domain.images.service import ImageService
from walt.server.domain.logs.service import LogService, PlatformLog
from walt.server.domain.logs.upkeep import LogUpkeep
from walt.server.domain.network.expose import ExposedPorts
from walt.server.domain.nodes.changes import NodeChanges
from walt.server.domain.nodes.completion import Completion
from walt.server.domain.nodes.configuration import Configuration
from walt.server.domain.nodes.files import NodeFiles, close_with_nodes
from walt.server.domain.nodes.image_users import ImageUsers
from walt.server.domain.nodes.issuers import LogIssuers
from walt.server.domain.nodes.monitor import BootMonitor
from walt.server.domain.nodes.neighbours import NeighbourReports
from walt.server.domain.nodes.ports import IVirtualMachines, UnlocatedPower
from walt.server.domain.nodes.reboot import Rebooter
from walt.server.domain.nodes.registration import Registration, Sighting
from walt.server.domain.nodes.remote_paths import RemotePaths
from walt.server.domain.nodes.service import NodeService
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.platform import Operations
from walt.server.domain.services.dns import forwarders
from walt.server.domain.services.lease_events import LeaseEvent
from walt.server.domain.services.provisioning import Provisioning
from walt.server.domain.services.service import NetworkServices
from walt.server.domain.virtual.addresses import FreeAddresses
from walt.server.domain.virtual.service import VirtualNodes
from walt.server.runtime.ordered import spawn
from walt.server.runtime.process import Launcher, ProcessRunner
from walt.server.runtime.workers import WorkerPool
from walt.server.runtime.workflow import Workflows

RESOLV_CONF = Path("/etc/resolv.conf")
SERVER_KEY = Path("/root/.ssh/id_rsa")


@dataclass
class Core:
    """The objects of one server, joined."""

    config: ServerConfig
    launcher: Launcher
    runner: ProcessRunner
    workers: WorkerPool
    workflows: Workflows
    links: Links
    taps: Taps
    link_plans: list[LinkPlan]
    cluster: Cluster | None
    database: Database
    logs: LogService
    log_store: PostgresLogs
    log_upkeep: LogUpkeep
    platform: PlatformLog
    registry: DeviceRegistry
    status: BootStatus
    monitor: BootMonitor
    registration: Registration
    nodes: NodeService
    images: ImageService
    facts: Facts
    exporter: Any
    network: NetworkServices
    provisioning: Provisioning
    dhcpd: DhcpdService
    named: NamedService
    tftpd: TftpdService
    swap: SwapService
    firewall: NftFirewall
    hypervisor: QemuHypervisor
    virtual: VirtualNodes
    sessions: SshSessions
    questions: KeptShells
    boot_files: BootFiles
    image_life: ImageLife
    context: Context
    exposed: ExposedPorts
    leases: Leases
    health: Health
    certificates: Certificates


def link_plans(config: ServerConfig) -> list[LinkPlan]:
    """Return the networks to set up."""
    return [
        LinkPlan(one.name, one.raw_device, one.vlan, one.ip) for one in config.networks.values()
    ]


def build(
    reactor: Any, config: ServerConfig, launcher: Launcher,
    host_network: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Core:
    """Build every object; nothing is started and nothing outside is touched.

    `host_network` gives a context in which sockets are opened in the host's network.
    """
    paths = config.paths
    runner = ProcessRunner(reactor, launcher)
    workers = WorkerPool(reactor, launcher, network="host")
    workflows = Workflows(reactor)
    links = Links(reactor, runner, paths.state)
    taps = Taps(runner)

    cluster = None
    dsn = config.database.dsn or ""
    if config.database.mode == "embedded":
        cluster = Cluster(paths.state, paths.runtime, runner)
        dsn = cluster.dsn
    database = Database(reactor, dsn)
    device_store = PostgresDevices(database)
    registry = DeviceRegistry(device_store, config.subnet)

    log_store = PostgresLogs(database)
    upkeep = LogUpkeep(log_store, reactor, config.log_retention_days)
    logs = LogService(log_store, reactor, time.time, upkeep.remove_soon)

    def server_mac() -> str | None:
        return registry.server.mac if registry.server is not None else None

    platform = PlatformLog(logs, server_mac)
    status = BootStatus(registry, device_store, platform, reactor, config.reconnect_grace)

    storage = Storage() if config.images.storage == "system" else Storage.private(
        paths.state, paths.runtime
    )
    store = PodmanStore(runner, storage, paths.cache / "images.metadata")
    facts = Facts(str(config.server_ip), "", "", config.reconnect_grace)
    mounter = OverlayMounter(
        workers, store, storage, images=paths.images, keys=paths.keys, facts=facts,
        server_spec=config.spec,
    )
    images = ImageService(
        store, PostgresImages(database),
        in_use=lambda: {node.image for node in registry.nodes() if node.image},
        node_models=lambda: {node.model for node in registry.nodes() if node.model},
    )

    leases = Leases()
    dhcpd = DhcpdService(
        reactor, launcher, directory=paths.service("dhcpd"),
        runtime=paths.service_runtime("dhcpd"),
        on_lease=leases.on_lease,
    )
    named = NamedService(
        reactor, launcher, directory=paths.service("named"),
        runtime=paths.service_runtime("named"),
    )
    tftpd = TftpdService(
        reactor, launcher, directory=paths.service("tftpd"),
        runtime=paths.service_runtime("tftpd"),
    )
    swap = SwapService(
        reactor, launcher, directory=paths.service("nbdkit"),
        runtime=paths.service_runtime("nbdkit"),
    )
    firewall = NftFirewall(runner)
    walt_net = config.networks[WALT_NET]
    network = NetworkServices(
        reactor, config.walt_interface, dhcp=dhcpd, dns=named,
        tree=BootTreeStore(reactor, runner, paths.nodes), firewall=firewall,
        forwarders=forwarders(_resolv_conf(), config.server_ip),
        guarded=None if walt_net.raw_device is None else _plan(config).base,
        ping_check=walt_net.raw_device is not None,
    )
    exporter = make_exporter(reactor, launcher, runner, config)
    provisioning = Provisioning(
        reactor, registry, images, mounter, exporter, network, paths.nodes
    )

    ssh_options = node_options(paths.state / "ssh" / "known_hosts.nodes", SERVER_KEY)
    shell = SshNodeShell(runner, ssh_options)

    status.image_content = lambda node: images.content(node.image)
    power = UnlocatedPower()
    hypervisor = QemuHypervisor(
        reactor, launcher, taps, paths.runtime / "vnodes", config.accel, workers, paths.nodes
    )
    machines = _Machines()
    link = NodeLink(reactor)
    rebooter = Rebooter(
        workflows, status, link, power,
        machines, provisioning, platform,
    )

    def reboot_late(late: list[Device]) -> None:
        spawn(
            rebooter.reboot(
                late, requester=None, hard_only=True, cause="bootup timeout", reset_retries=False
            ),
            "rebooting late nodes",
        )

    monitor = BootMonitor(registry, status, platform, reactor, reboot_late)
    rebooter.monitor = monitor
    registration = Registration(registry, images, workflows, platform, monitor)
    leases.registration = registration
    nodes = NodeService(registry, images, status, monitor, rebooter, logs, link)
    life = image_life(
        reactor, config, launcher, runner, workers, store, images,
        ImageUsers(registry, rebooter, provisioning.update),
    )
    questions = KeptShells(reactor, launcher, ssh_options)
    close_with_nodes(questions, registry, status, nodes)
    files = NodeFiles(nodes, questions)
    checkpoints = PostgresCheckpoints(database)
    exposed = ExposedPorts(
        Forwards(reactor, opening=host_network),
        lambda line: platform.write("expose", line, error=True),
    )
    configuration = Configuration(
        registry, nodes, monitor, images, exposed, logs, platform
    )
    virtual = VirtualNodes(
        registry, nodes, status, monitor, images, provisioning, hypervisor,
        FreeAddresses(registry, config.server_ip, random.SystemRandom()), logs, platform,
        reactor, images.give_default,
    )
    machines.virtual = virtual
    daemons: list[Any] = [dhcpd, named, tftpd, swap]
    if isinstance(exporter, ganesha.GaneshaExporter):
        daemons.append(exporter.child)
    operations = Health(daemons)
    certificates = Certificates(config, database, platform)
    context = Context(
        registry=registry, nodes=nodes, configuration=configuration,
        completion=Completion(
            registry, images, life.operations.places, checkpoints,
            RemotePaths(registry, images, files, life.files, reactor),
        ),
        registration=registration, status=status, power=power,
        images=images, image_operations=life.operations, files=files,
        changes=NodeChanges(nodes, files, shell, life.operations.sessions), logs=logs,
        issuers=LogIssuers(registry),
        checkpoints=checkpoints, virtual=virtual,
        operations=Operations(operations.services, lambda: workflow_rows(workflows)),
        neighbours=NeighbourReports(registry, PostgresTopology(database), platform),
        access=certificates.access, host=certificates.names[0],
        client_package=ClientPackage(runner, paths.cache).path,
        server_ip=str(config.server_ip), clock=reactor, now=time.time,
    )
    return Core(
        config=config, launcher=launcher, runner=runner, workers=workers, workflows=workflows,
        links=links, taps=taps, link_plans=link_plans(config), cluster=cluster,
        database=database, logs=logs, log_store=log_store, log_upkeep=upkeep,
        platform=platform, registry=registry,
        status=status,
        monitor=monitor, registration=registration, nodes=nodes, images=images,
        facts=facts, exporter=exporter, network=network, provisioning=provisioning, dhcpd=dhcpd,
        named=named, tftpd=tftpd, swap=swap, firewall=firewall, hypervisor=hypervisor,
        virtual=virtual,
        sessions=SshSessions(reactor, launcher, ssh_options),
        questions=questions,
        boot_files=BootFiles(paths.state), image_life=life,
        context=context, exposed=exposed, leases=leases,
        health=operations, certificates=certificates,
    )


class Health:
    """The daemons whose health people may see; assembly adds the database's."""

    def __init__(self, daemons: list[Any]) -> None:
        self.daemons = daemons

    def services(self) -> list[dict[str, Any]]:
        """Return one row for each daemon."""
        return [
            {
                "name": one.name, "running": one.running, "pid": one.pid,
                "restarts": one.restarts, "status": one.last_status,
            }
            for one in (daemon.health for daemon in self.daemons)
        ]


def workflow_rows(workflows: Workflows) -> list[dict[str, Any]]:
    """Return one row for each running workflow, ages in seconds."""
    return [
        {
            "name": one.name, "step": one.step, "age": round(one.age, 1),
            "step-age": round(one.step_age, 1), "remaining": ", ".join(one.remaining),
        }
        for one in workflows.running()
    ]


class Leases:
    """Hands lease events over to the registration, once there is one."""

    registration: Registration | None = None

    def on_lease(self, event: LeaseEvent) -> None:
        """Register the device of a committed lease."""
        wanted = event.registration()
        if wanted is not None and self.registration is not None:
            spawn(
                self.registration.register(
                    Sighting(wanted.mac, wanted.ip, wanted.vci, wanted.uci, wanted.name)
                ),
                f"registering {wanted.mac}",
            )


def make_exporter(
    reactor: Any, launcher: Launcher, runner: ProcessRunner, config: ServerConfig
) -> Any:
    """Return the NFS exporter that `services.nfs` asks for."""
    wanted = config.services.nfs
    if wanted == "kernel" or (wanted == "auto" and kernel.usable()):
        return kernel.KernelExporter(runner, nodes=config.paths.nodes)
    return ganesha.GaneshaExporter(
        reactor, launcher, directory=config.paths.service("ganesha"),
        runtime=config.paths.service_runtime("ganesha"), address=str(config.server_ip),
    )


@implementer(IVirtualMachines)
class _Machines:
    """Breaks the circle between reboots and virtual nodes."""

    virtual: VirtualNodes | None = None

    def kill(self, mac: str) -> bool:
        """End the machine of a node."""
        return self.virtual is not None and self.virtual.kill(mac)


def _plan(config: ServerConfig) -> LinkPlan:
    one = config.networks[WALT_NET]
    return LinkPlan(one.name, one.raw_device, one.vlan, one.ip)


def _resolv_conf() -> str:
    try:
        return RESOLV_CONF.read_text()
    except OSError:
        return ""


def server_device(config: ServerConfig, mac: str, registry: DeviceRegistry) -> Device:
    """Return the entry of the server itself (spec server §2.2, server entry fix)."""
    known = registry.get(mac)
    return Device(
        mac=mac, name="walt-server", type="server", ip=str(config.server_ip),
        conf=known.conf if known is not None else {},
    )
