"""Builds what everything else stands on: processes, networks, the database, devices, logs."""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import NamedTuple

from walt.server.adapters.archive.files import ArchiveFiles, credentials
from walt.server.adapters.network.links import Links
from walt.server.adapters.network.plans import LinkPlan
from walt.server.adapters.network.taps import Taps
from walt.server.adapters.postgres.boots import PostgresBoots
from walt.server.adapters.postgres.cluster import Cluster
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.log_archives import PostgresLogArchives
from walt.server.adapters.postgres.logs import PostgresLogs
from walt.server.adapters.ssh.keys import PlatformKeys
from walt.server.adapters.volumes.file_systems import Volumes
from walt.server.assembly.health import Health
from walt.server.config.model import ServerConfig
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.archive import ArchiveTarget
from walt.server.domain.logs.archiving import LogArchiving
from walt.server.domain.logs.lines import LogService, PlatformLog
from walt.server.domain.logs.upkeep import LogUpkeep
from walt.server.runtime.process import Launcher, ProcessRunner
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.workers import WorkerPool
from walt.server.runtime.workflow import Workflows


class LogArchives(NamedTuple):
    """The archive of log lines: its files, the workers that write them, who moves weeks."""

    files: ArchiveFiles
    workers: WorkerPool
    archiving: LogArchiving

    async def stop(self) -> None:
        """Leave the rest for the next start; return when no child is left."""
        self.archiving.stop()
        await self.files.stop()
        await self.workers.stop()


class Base(NamedTuple):
    """The lowest floor of a server."""

    config: ServerConfig
    reactor: IReactor
    launcher: Launcher
    runner: ProcessRunner
    workers: WorkerPool
    volumes: Volumes
    workflows: Workflows
    links: Links
    taps: Taps
    link_plans: list[LinkPlan]
    cluster: Cluster | None
    database: Database
    device_store: PostgresDevices
    boot_store: PostgresBoots
    registry: DeviceRegistry
    log_store: PostgresLogs
    log_upkeep: LogUpkeep
    log_archive: LogArchives | None
    logs: LogService
    platform: PlatformLog
    keys: PlatformKeys
    health: Health


def build_base(reactor: IReactor, config: ServerConfig, launcher: Launcher) -> Base:
    """Build and join these objects."""
    paths = config.paths
    runner = ProcessRunner(reactor, launcher)
    cluster = None
    dsn = config.database.dsn or ""
    if config.database.mode == "embedded":
        cluster = Cluster(paths.state, paths.runtime, runner)
        dsn = cluster.dsn
    database = Database(reactor, dsn)
    device_store = PostgresDevices(database)
    registry = DeviceRegistry(device_store, config.subnet)

    archive = _log_archive(reactor, config, launcher, database, dsn)
    log_store = PostgresLogs(database, archive=None if archive is None else archive.files)
    upkeep = LogUpkeep(log_store, reactor, config.log_retention_days)

    def forgotten() -> None:
        upkeep.remove_soon()
        if archive is not None:
            archive.archiving.soon()

    logs = LogService(log_store, reactor, time.time, forgotten)

    workers = WorkerPool(reactor, launcher, network="host")
    return Base(
        config=config, reactor=reactor, launcher=launcher, runner=runner,
        workers=workers, volumes=Volumes(
            reactor, workers, state=paths.state, nodes=paths.nodes,
            storage=config.images.storage == "private", persist_size=config.persist.size,
        ),
        workflows=Workflows(reactor),
        links=Links(reactor, runner, paths.state), taps=Taps(runner),
        link_plans=[
            LinkPlan(network.name, network.raw_device, network.vlan, network.ip)
            for network in config.networks.values()
        ],
        cluster=cluster, database=database, device_store=device_store,
        boot_store=PostgresBoots(database), registry=registry,
        log_store=log_store, log_upkeep=upkeep, log_archive=archive, logs=logs,
        platform=PlatformLog(logs, partial(server_mac, registry)),
        keys=PlatformKeys(runner, paths.keys, paths.state), health=Health(),
    )


def archive_target(config: ServerConfig) -> ArchiveTarget | None:
    """Return where log lines are archived, None where they are not."""
    found = config.log_archive
    return None if found is None else ArchiveTarget(
        found.directory, found.bucket, found.prefix, found.endpoint, found.region,
        found.credentials,
    )


def _log_archive(
    reactor: IReactor, config: ServerConfig, launcher: Launcher, database: Database, dsn: str
) -> LogArchives | None:
    target = archive_target(config)
    if config.log_archive is None or target is None:
        return None
    # A slow store must not take the workers that mount what nodes boot.
    workers = WorkerPool(reactor, launcher, size=1, network="host", variables=credentials())
    files = ArchiveFiles(reactor, launcher, workers, target, dsn, state=config.paths.state)
    return LogArchives(files, workers, LogArchiving(
        PostgresLogArchives(database), files, reactor, config.log_archive.after,
        config.log_retention_days, lambda: secrets.token_hex(4),
    ))


def server_mac(registry: DeviceRegistry) -> str | None:
    """Return the MAC of walt-net on the server, None before its interface is up."""
    return registry.server.mac if registry.server is not None else None


def server_device(config: ServerConfig, mac: str, registry: DeviceRegistry) -> Device:
    """Return the entry of the server itself (spec server §2.2, server entry fix)."""
    known = registry.get(mac)
    return Device(
        mac=mac, name="walt-server", type="server", ip=str(config.server_ip),
        conf=known.conf if known is not None else {},
    )
