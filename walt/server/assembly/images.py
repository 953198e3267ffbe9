"""Builds the objects of the life of images and joins them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from walt.server.adapters.podman.builder import PodmanBuilder, choose_isolation
from walt.server.adapters.podman.containers import (
    PodmanContainers,
    choose_engine,
    has_cgroup2,
)
from walt.server.adapters.podman.store import PodmanStore
from walt.server.config.model import ServerConfig
from walt.server.domain.images.builds import ImageBuilds
from walt.server.domain.images.changes import ImageChanges
from walt.server.domain.images.ports import IImageUsers
from walt.server.domain.images.service import ImageService
from walt.server.domain.images.sessions import ImageSessions
from walt.server.runtime.process import DEFAULT_PATH, ProcessRunner
from walt.server.runtime.workers import WorkerPool


@dataclass(frozen=True)
class ImageLife:
    """What changes images."""

    store: PodmanStore
    containers: PodmanContainers
    builder: PodmanBuilder
    sessions: ImageSessions
    changes: ImageChanges
    builds: ImageBuilds

    async def sweep(self) -> None:
        """Remove what a killed server left; done before anybody can ask for anything."""
        await self.containers.sweep()
        await self.builder.sweep()
        await self.store.sweep()


def image_life(
    config: ServerConfig, runner: ProcessRunner, workers: WorkerPool, store: PodmanStore,
    images: ImageService, users: IImageUsers,
) -> ImageLife:
    """Build and join these objects."""
    cgroup2 = has_cgroup2()
    engine = choose_engine(
        config.images.runtime, config.images.ulimits, cgroup2=cgroup2,
        has_runc=shutil.which("runc", path=DEFAULT_PATH) is not None,
    )
    containers = PodmanContainers(
        runner, store.storage, engine, config.paths.runtime / "sessions"
    )
    builder = PodmanBuilder(
        runner, workers, store.storage, engine,
        choose_isolation(config.images.build_isolation, cgroup2=cgroup2),
        config.paths.state / "builds",
    )
    changes = ImageChanges(images, store, users, builder)
    return ImageLife(
        store, containers, builder, ImageSessions(images, containers, users), changes,
        ImageBuilds(changes, builder),
    )
