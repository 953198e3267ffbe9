"""Builds and squashes: the new image whole, or the old one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeBuilder, FakeCatalog, FakeImageUsers, FakeStore
from tests.server.domain.images.test_catalog import Asking
from tests.system.storage import archive
from walt.common.errors import Busy, Invalid, NotFound
from walt.server.domain.images.builds import ImageBuild, ImageBuilds
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.catalog import ImageService

BASE, PLAIN, NEW = "ann/base:latest", "ann/plain:latest", "ann/new:latest"
LABELS = {"walt.node.models": "pc-x86-64"}


class BuildsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Two images, one without label."""
        self.store = FakeStore(
            StoredImage(BASE, "a" * 64, labels=LABELS, layers=("l/A", "l/B")),
            StoredImage(PLAIN, "b" * 64),
        )
        self.users = FakeImageUsers()
        self.images = ImageService(self.store, FakeCatalog(), in_use=set)
        self.now(self.images.refresh())
        self.places = Path(self.mktemp())
        builder = FakeBuilder(self.store, self.places)
        self.changes = ImageChanges(self.images, self.store, self.users, builder)
        self.builds = ImageBuilds(self.changes, builder)
        self.requester = Asking()

    def now(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def failed(self, coroutine: Any, error: type[Exception]) -> None:
        self.failureResultOf(Deferred.fromCoroutine(coroutine), error)

    def open(self, recipe: str, name: str = "new") -> ImageBuild:
        build = self.builds.open("ann", name)
        build.archive.write_bytes(archive({"Dockerfile": recipe.encode()}))
        self.now(build.unpack())
        return build

    def close(self, build: ImageBuild) -> None:
        self.now(build.close())
        self.assertEqual(list(self.places.iterdir()), [])
        self.assertEqual(self.store.temporaries, {})
        self.assertIsNone(self.images.task_of(NEW))

    def test_built(self) -> None:
        """The image has its name, its nodes follow, nothing is left."""
        build = self.open("FROM base\n")
        self.assertRaises(Busy, self.builds.open, "ann", "new")
        self.now(build.command())
        self.assertTrue(self.now(build.finish(self.requester)))
        self.close(build)
        self.assertEqual(len(self.images.get(NEW).layers), 3)
        self.assertEqual(self.users.followed, [NEW])
        self.assertEqual(self.requester.lines, ["Image new was built."])

    def test_not_built(self) -> None:
        """No label, wrong models for its nodes, no such directory: the old image stays."""
        self.users.nodes[BASE] = {"n1": "rpi-b"}
        for recipe, name in (("FROM plain\n", "new"), ("FROM base\n", "base")):
            build = self.open(recipe, name)
            self.now(build.command())
            self.failed(build.finish(self.requester), Invalid)
            self.close(build)
        build = self.open("FROM base\n")
        self.failed(build.command("none"), NotFound)
        self.close(build)
        self.assertFalse(self.images.has(NEW))
        self.assertEqual(self.images.get(BASE).image_id, "a" * 64)

    def test_squashed(self) -> None:
        """One layer is left; a task on the image comes first."""
        with self.images.task(BASE, "shell"):
            self.failed(self.changes.squash("ann", "base", self.requester), Busy)
        self.assertTrue(self.now(self.changes.squash("ann", "base", self.requester)))
        self.assertEqual(len(self.images.get(BASE).layers), 1)
        self.assertEqual(self.requester.lines, ["Image base was squashed."])
        self.assertEqual(self.store.temporaries, {})

    def test_squashed_although_the_requester_leaves(self) -> None:
        """What has its name is known, and its nodes follow; it is held until then."""
        disk: Deferred[None] = Deferred()
        self.store.after = disk
        going = Deferred.fromCoroutine(self.changes.squash("ann", "base", self.requester))
        going.cancel()
        self.assertNoResult(going)
        self.assertEqual(self.images.task_of(BASE), "squash")
        disk.callback(None)
        self.failureResultOf(going, CancelledError)
        self.assertEqual(len(self.images.get(BASE).layers), 1)
        self.assertEqual(self.users.followed, [BASE])
        self.assertEqual(self.store.temporaries, {})
        self.assertIsNone(self.images.task_of(BASE))
