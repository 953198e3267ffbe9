"""Builds the store of images and what changes it."""

from __future__ import annotations

import shutil
from functools import partial
from ipaddress import IPv4Interface
from typing import NamedTuple

from twisted.logger import Logger

import walt
from walt.server.adapters.podman.archiver import SkopeoArchiver
from walt.server.adapters.podman.builder import PodmanBuilder
from walt.server.adapters.podman.containers import (
    PodmanContainers,
    choose_engine,
    has_cgroup2,
)
from walt.server.adapters.podman.daemon import DockerDaemon
from walt.server.adapters.podman.former import FormerStorage
from walt.server.adapters.podman.mounter import OverlayMounter
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.registry import Location, SkopeoRegistry
from walt.server.adapters.podman.repositories import Repositories
from walt.server.adapters.podman.skopeo import Skopeo
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.podman.surroundings import Surroundings
from walt.server.adapters.postgres.images import PostgresImages
from walt.server.adapters.ssh.options import git_command
from walt.server.assembly.base import Base, server_mac
from walt.server.domain.images.archives import ImageArchives
from walt.server.domain.images.builds import ImageBuilds
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.clone import Cloner
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.defaults import DefaultImages, MissingDefaults
from walt.server.domain.images.files import ImageFiles
from walt.server.domain.images.interfaces import IImageSource, IImageUsers, IRegistry
from walt.server.domain.images.links import DAEMON
from walt.server.domain.images.migration import Migration
from walt.server.domain.images.model import RegistryInfo
from walt.server.domain.images.operations import ImageOperations
from walt.server.domain.images.places import Places
from walt.server.domain.images.publish import Publisher
from walt.server.domain.images.search import Searcher
from walt.server.domain.images.server_values import Facts
from walt.server.domain.images.sessions import ImageSessions
from walt.server.runtime.process import DEFAULT_PATH
from walt.server.runtime.workers import WorkerPool

_log = Logger()

LAYERS = "layers"  # below the state directory: layers on their way
SECRETS = "registries"  # below the runtime directory: credentials while they serve


class Images(NamedTuple):
    """Where images are and come from, what they are called, how they are mounted and run.

    `former` has the places where an older WalT may have left images that the database knows;
    `base` is what does the work.
    """

    storage: Storage
    store: PodmanStore
    service: ImageService
    mounter: OverlayMounter
    skopeo: Skopeo
    places: Places
    defaults: MissingDefaults
    registry_workers: tuple[WorkerPool, ...]
    containers: PodmanContainers
    builder: PodmanBuilder
    builders: WorkerPool
    former: list[IImageSource]
    base: Base

    async def stop(self) -> None:
        """End the workers of registries."""
        for pool in self.registry_workers:
            await pool.stop()

    async def sweep(self) -> None:
        """Remove what a killed server left; done before anybody can ask for anything."""
        storage, workers, paths = self.storage, self.base.workers, self.base.config.paths
        storage.protect()
        if storage.root is not None:
            for layer in await workers.call(
                "image_tree:mend", {"storage": str(storage.graph_root / "overlay")}
            ):
                _log.warn("layer {layer} was cut off while it was made", layer=layer[:12])
        for place in (paths.state / LAYERS, paths.runtime / SECRETS):
            if place.exists():
                await workers.call("build_context:remove", {"directory": str(place)})
        await self.containers.sweep()
        await self.builder.sweep()
        await self.store.sweep()


def build_images(base: Base) -> Images:
    """Build and join these objects."""
    config, registry, runner = base.config, base.registry, base.runner
    paths = config.paths
    storage = Storage() if config.images.storage == "system" else Storage.private(
        paths.state, paths.runtime
    )
    store = PodmanStore(runner, storage, paths.cache / "images.metadata")
    facts = Facts(
        str(config.server_ip), lambda: server_mac(registry) or "", base.keys.node_key,
        config.reconnect_grace,
    )
    service = ImageService(
        store, PostgresImages(base.database),
        in_use=registry.images, node_models=registry.models,
    )
    # Slow registries must not take the workers that mount images.
    readers = WorkerPool(
        base.reactor, base.launcher, size=4, network="host", unprivileged=["registry_api"]
    )
    writers = WorkerPool(base.reactor, base.launcher, network="host")
    skopeo = Skopeo(runner, storage, paths.state / LAYERS)
    places = Places(_places(base, storage, skopeo, readers, writers))
    cgroup2 = has_cgroup2()
    engine = choose_engine(
        config.images.runtime, config.images.ulimits, cgroup2=cgroup2,
        has_runc=shutil.which("runc", path=DEFAULT_PATH) is not None,
    )
    surroundings = Surroundings(
        "chroot" if config.images.build_isolation == "chroot" else "oci",
        tuple(
            network.ip.network for network in config.networks.values()
            if isinstance(network.ip, IPv4Interface)
        ),
        config.images.git_networks,
    )
    containers = PodmanContainers(
        runner, storage, engine, paths.runtime / "sessions",
        paths.state / LAYERS, surroundings,
    )
    # Long unpacking must not take the workers that mount what nodes boot.
    builders = WorkerPool(base.reactor, base.launcher, network="host")
    builder = PodmanBuilder(
        runner, builders, storage, engine, surroundings,
        paths.state / "builds",
        Repositories(
            runner, partial(git_command, config.images.git_identity), (config.subnet,),
            config.images.git_networks,
        ),
    )
    return Images(
        storage=storage, store=store, service=service,
        mounter=OverlayMounter(
            base.workers, store, storage, images=paths.images, keys=paths.keys, facts=facts,
            server_spec=config.spec,
        ),
        skopeo=skopeo, places=places, defaults=MissingDefaults(service, store, places),
        registry_workers=(readers, writers), containers=containers, builder=builder,
        builders=builders, former=_former_places(base, storage, skopeo, places), base=base,
    )


class ImageLife(NamedTuple):
    """What changes images."""

    operations: ImageOperations
    files: ImageFiles
    archives: ImageArchives
    builders: WorkerPool

    async def stop(self) -> None:
        """End what people do inside images, and the workers of builds."""
        await self.operations.sessions.stop()
        await self.files.stop()
        await self.builders.stop()


def image_life(base: Base, stock: Images, users: IImageUsers) -> ImageLife:
    """Build and join these objects."""
    images, containers, builder = stock.service, stock.containers, stock.builder
    changes = ImageChanges(images, stock.store, users, builder)
    places = stock.places
    major = int(walt.__version__.split(".")[0])
    operations = ImageOperations(
        sessions=ImageSessions(images, containers, users), changes=changes,
        builds=ImageBuilds(changes, builder), places=places,
        cloner=Cloner(changes, places, major), publisher=Publisher(images, places),
        searcher=Searcher(images, places, base.reactor, major),
        defaults=DefaultImages(changes, places), migration=Migration(changes, stock.former),
    )
    archives = ImageArchives(
        changes,
        SkopeoArchiver(stock.skopeo, stock.builders, base.config.paths.state / LAYERS), major,
    )
    return ImageLife(
        operations, ImageFiles(containers, base.reactor), archives, stock.builders
    )


def _places(
    base: Base, storage: Storage, skopeo: Skopeo, readers: WorkerPool, writers: WorkerPool
) -> list[IRegistry]:
    """Return the registries of the configuration, then the docker daemon if there is one."""
    runner, config = base.runner, base.config
    found: list[IRegistry] = [
        SkopeoRegistry(
            runner, readers, writers, storage, skopeo,
            RegistryInfo(
                registry.label, registry.description,
                "hub" if registry.api == "docker-hub" else "registry",
                registry.auth == "basic",
                registry.repository if registry.api == "jfrog-artifactory" else None,
            ),
            Location(registry.host, registry.port, registry.protocol),
            config.paths.runtime / SECRETS,
        )
        for registry in config.registries
    ]
    if config.images.docker_socket.is_socket():
        found.append(DockerDaemon(writers, skopeo, config.images.docker_socket))
    return found


def _former_places(
    base: Base, storage: Storage, skopeo: Skopeo, places: Places
) -> list[IImageSource]:
    """Return where an older WalT may have left images that the database knows."""
    machine = Storage()
    found: list[IImageSource] = []
    if storage.root is not None and machine.graph_root.is_dir():
        found.append(FormerStorage(base.runner, skopeo, machine))
    if DAEMON in places.locations:
        found.append(places.get(DAEMON))
    return found
