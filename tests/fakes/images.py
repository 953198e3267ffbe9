"""Fakes of the ports of the images domain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zope.interface import implementer

from walt.common.errors import CommandFailed, NotFound
from walt.server.domain.images.exports import ExportPlan
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.ports import (
    IImageCatalog,
    IImageMounter,
    IImageStore,
    INfsExporter,
)


@implementer(IImageStore)
class FakeStore:
    """Images in a dict, by name."""

    def __init__(self, *images: StoredImage) -> None:
        self.names = {image.fullname: image for image in images}
        self.by_id = {image.image_id: image for image in images}
        self.kept: set[str] = set()

    async def scan(self) -> list[StoredImage]:
        return list(self.names.values())

    async def tag(self, image_id: str, fullname: str) -> None:
        if image_id not in self.by_id:
            raise CommandFailed(f"no image {image_id}")
        self.names[fullname] = replace(self.by_id[image_id], fullname=fullname)

    async def untag(self, fullname: str) -> None:
        if fullname not in self.names:
            raise NotFound(f"no image named {fullname} in the store")
        image = self.names.pop(fullname)
        if image.image_id not in {one.image_id for one in self.names.values()} | self.kept:
            del self.by_id[image.image_id]

    async def keep(self, image_id: str) -> None:
        if image_id not in self.by_id:
            raise CommandFailed(f"no image {image_id}")
        self.kept.add(image_id)

    async def release(self, image_id: str) -> None:
        self.kept.discard(image_id)


@implementer(IImageCatalog)
class FakeCatalog:
    """Names in a set."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    async def fullnames(self) -> set[str]:
        return set(self.names)

    async def add(self, fullname: str) -> None:
        self.names.add(fullname)

    async def remove(self, fullname: str) -> None:
        self.names.discard(fullname)


@implementer(IImageMounter)
class FakeMounter:
    """Mounts noted in `events`; ids in `broken` fail."""

    def __init__(self, events: list[str] | None = None) -> None:
        self.events = [] if events is None else events
        self.now: set[str] = set()
        self.broken: set[str] = set()

    def path(self, image_id: str) -> Path:
        return Path("/images") / image_id / "fs"

    async def mount(self, image: StoredImage) -> Path:
        self.events.append(f"mount {image.image_id[:2]}")
        if image.image_id in self.broken:
            raise CommandFailed("cannot mount")
        self.now.add(image.image_id)
        return self.path(image.image_id)

    async def unmount(self, image_id: str) -> None:
        self.events.append(f"unmount {image_id[:2]}")
        if image_id in self.broken:
            raise CommandFailed("cannot unmount")
        self.now.discard(image_id)

    async def mounted(self) -> set[str]:
        return set(self.now)


@implementer(INfsExporter)
class FakeExporter:
    """Plans in a list."""

    def __init__(self) -> None:
        self.plans: list[ExportPlan] = []

    async def apply(self, plan: ExportPlan) -> None:
        if not self.plans or self.plans[-1] != plan:
            self.plans.append(plan)
        for node in plan.nodes:
            if node.persist is not None:
                node.persist.mkdir(parents=True, exist_ok=True)

    async def withdraw(self) -> None:
        self.plans.clear()
