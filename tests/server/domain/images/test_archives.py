"""Images as one file: who may have which, and what becomes of what strangers send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeArchiver, FakeCatalog, FakeImageUsers, FakeStore
from tests.server.domain.images.test_catalog import Asking
from walt.common.errors import Busy, CommandFailed, Conflict, Invalid, NotFound
from walt.server.domain.images.archives import ImageArchives
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.model import StoredImage

LABELS = {"walt.node.models": "pc-x86-64"}
MINE, HIS = "a" * 64, "b" * 64


class ImageArchivesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = FakeStore(
            StoredImage("ann/img:latest", MINE, labels=LABELS),
            StoredImage("bob/img:latest", HIS, labels=LABELS),
        )
        self.images = ImageService(self.store, FakeCatalog(), in_use=set)
        self.now(self.images.refresh())
        self.archives = ImageArchives(
            ImageChanges(self.images, self.store, FakeImageUsers(), None),
            FakeArchiver(self.store, Path(self.mktemp())), 11,
        )
        self.place = self.archives.open()

    def now(self, work: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def failing(self, work: Any, kind: type[Exception]) -> str:
        return str(self.failureResultOf(Deferred.fromCoroutine(work), kind).value)

    def load(self, images: dict[str, str], text: str) -> Any:
        async def work() -> None:
            with self.archives.loading("ann", images) as fullnames:
                archive = self.place / "archive"
                archive.write_text(text)
                await self.archives.load(self.place, archive, fullnames, Asking())

        return work()

    def test_packed(self) -> None:
        """Any image of the platform, by its id; a missing one is told; no reference stays."""
        command = self.now(self.archives.pack(self.place, [HIS, MINE, HIS], Asking()))
        self.assertEqual(json.loads(Path(command[-1]).read_text()).keys(), {HIS, MINE})
        told = self.failing(self.archives.pack(self.place, [MINE, "9" * 64], Asking()), NotFound)
        self.assertEqual(told, "the platform has no image 999999999999 any more")
        self.assertEqual(self.store.temporaries, {})

    def test_one_after_the_other(self) -> None:
        """Of two that are packed, one waits; one that is not waited for any more is not packed."""
        going: list[Deferred[list[str]]] = []

        def pack(place: Path, images: Any, requester: Any) -> Deferred[list[str]]:
            going.append(Deferred())
            return going[-1]

        self.patch(self.archives._archiver, "pack", pack)
        asking = [Asking() for _ in range(3)]
        one, two, three = [
            Deferred.fromCoroutine(self.archives.pack(self.place, [MINE], who)) for who in asking
        ]
        self.assertEqual(len(going), 1)
        self.assertIn("Waiting for another archive", str(asking[1].lines))
        two.cancel()
        self.failureResultOf(two, CancelledError)
        going[0].errback(CommandFailed("no"))
        self.failureResultOf(one, CommandFailed)
        self.assertEqual(len(going), 2)
        going[1].callback(["cat"])
        self.assertEqual(self.successResultOf(three), ["cat"])
        self.assertEqual(self.store.temporaries, {})

    def test_loaded(self) -> None:
        """It gets a name of its user; a name that is taken, held or none is refused."""
        text = json.dumps({"c" * 64: LABELS, "d" * 64: {}, "e" * 64: {
            **LABELS, "walt.server.minversion": "99",
        }})
        self.now(self.load({"new": "c" * 64}, text))
        self.assertEqual(self.images.get("ann/new:latest").image_id, "c" * 64)
        before = dict(self.store.names)
        for name, image_id, kind in (
            ("img", "c" * 64, Conflict), ("../x", "c" * 64, Invalid), ("default", "c" * 64, Invalid),
            ("two", "9" * 64, Invalid), ("two", "d" * 64, Invalid), ("two", "e" * 64, Invalid),
        ):
            self.failing(self.load({name: image_id}, text), kind)
        self.failing(self.load({"two": "c" * 64}, "nothing of that kind"), Invalid)
        with self.images.task("ann/two:latest", "clone"):
            self.failing(self.load({"two": "c" * 64}, text), Busy)
        self.assertEqual((self.store.names, self.store.temporaries), (before, {}))
        self.assertIsNone(self.images.task_of("ann/two:latest"))
