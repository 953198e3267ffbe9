"""Images that an older WalT left elsewhere."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeCatalog, FakeImageUsers, FakeRegistry, FakeStore
from walt.common.errors import Unavailable
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.migration import Migration
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.catalog import ImageService

HERE, THERE, NOWHERE = "ann/here:latest", "ann/there:latest", "ann/nowhere:latest"
LABELS = {"walt.node.models": "pc-x86-64"}


class MigrationTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Three known names: one in the store, one in the daemon, one nowhere."""
        self.store = FakeStore(StoredImage(HERE, "a" * 64, labels=LABELS))
        self.catalog, self.users = FakeCatalog(HERE, THERE, NOWHERE), FakeImageUsers()
        self.images = ImageService(self.store, self.catalog, in_use=set)
        self.daemon = FakeRegistry(self.store, "docker")
        self.daemon.images[THERE] = StoredImage("", "b" * 64, labels=LABELS)
        self.daemon.images["ann/unknown:latest"] = StoredImage("", "c" * 64, labels=LABELS)
        self.changes = ImageChanges(self.images, self.store, self.users, None)
        self.migration = Migration(self.changes, [self.daemon])
        self.none = Migration(self.changes, [])

    def now(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_only_known_names_come(self) -> None:
        """What is known comes, and its nodes follow; what is nowhere is forgotten."""
        self.assertEqual((self.migration.possible, self.none.possible), (True, False))
        missing = self.now(self.images.refresh(forget=False))
        self.assertEqual(missing, [NOWHERE, THERE])
        self.now(self.migration.run(missing))
        self.assertEqual([one.fullname for one in self.images.all()], [HERE, THERE])
        self.assertEqual(self.catalog.names, {HERE, THERE})
        self.assertEqual(self.users.followed, [THERE])
        self.assertEqual(self.store.temporaries, {})

    def test_two_places(self) -> None:
        """The first place that has an image gives it; one that fails keeps all from being lost."""
        other = FakeRegistry(self.store, "podman")
        other.images[NOWHERE] = StoredImage("", "d" * 64, labels=LABELS)
        other.images[THERE] = StoredImage("", "e" * 64, labels=LABELS)
        migration = Migration(self.changes, [self.daemon, other])
        self.now(migration.run(self.now(self.images.refresh(forget=False))))
        self.assertEqual(
            {one.fullname: one.image_id for one in self.images.all()},
            {HERE: "a" * 64, THERE: "b" * 64, NOWHERE: "d" * 64},
        )

    def test_daemon_that_fails(self) -> None:
        """Nothing is forgotten: the next start tries again."""
        self.daemon.error = Unavailable("no answer")
        missing = self.now(self.images.refresh(forget=False))
        self.now(self.migration.run(missing))
        self.assertEqual(self.catalog.names, {HERE, THERE, NOWHERE})
