"""Images and containers can be removed from a disk that is full."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.contracts.test_containers import NAME, OTHER
from tests.patience import patient
from tests.system.storage import TestStorage, engine, why_not, with_busybox
from walt.common.errors import CommandFailed
from walt.server.adapters.podman.containers import PodmanContainers
from walt.server.adapters.podman.removal import run_freeing
from walt.server.adapters.podman.reserve import SIZE, Reserve
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.podman.surroundings import Surroundings
from walt.server.domain.images.model import ContainerOptions


def fill(place: Path) -> None:
    """Take all free space of a file system, and its inodes."""
    with open(place / "filler", "wb") as file:
        taken, size = 0, 1 << 30
        while size >= 512:
            try:
                os.posix_fallocate(file.fileno(), taken, size)
                taken += size
            except OSError:
                size //= 2
    number = 0
    while True:
        try:
            (place / f"empty-{number}").touch()
        except OSError:
            return
        number += 1


class FullDiskTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_full(self) -> None:
        """A container and the names of images go although nothing can be written."""
        from twisted.internet import reactor

        place = TestStorage(reactor)
        self.addCleanup(place.close)
        disk, state = place.base / "disk", place.base / "s"
        await place.runner.run(["truncate", "--size", "400M", str(disk)])
        await place.runner.run(["mkfs.xfs", "-q", str(disk)])
        await place.runner.run(["mount", "-o", "loop", str(disk), str(state)])
        await place.make_image(NAME, with_busybox())
        store = PodmanStore(place.runner, place.storage, place.base / "cache.json")
        image = await store.read(NAME)
        await store.tag(image.image_id, OTHER)
        containers = PodmanContainers(
            place.runner, place.storage, engine(), place.base / "scratch",
            place.base / "layers", Surroundings(),
        )
        container = await containers.start(image, ContainerOptions())
        await Reserve(place.runner, place.storage).fill()
        fill(state)
        with self.assertRaises(CommandFailed):
            await place.podman("image", "tag", image.image_id, "localhost/no:space")

        await containers.remove(container)
        self.assertEqual(await place.podman("ps", "--all", "--quiet"), "")
        await store.untag(OTHER)
        await store.untag(NAME)
        self.assertEqual(await place.references(), set())

    async def test_other_failures(self) -> None:
        """What fails for another reason is not tried again, and spends nothing."""
        from twisted.internet import reactor

        place = TestStorage(reactor)
        self.addCleanup(place.close)
        await place.make_image(NAME)
        with self.assertRaises(CommandFailed):
            await run_freeing(place.runner, place.storage, "image", "rm", "--", "no/such")
        reserve = place.storage.graph_root.parent / "reserve"
        self.assertGreaterEqual(reserve.stat().st_blocks * 512, SIZE)
