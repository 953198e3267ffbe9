"""The port IImageArchiver, on the fake and on real skopeo: an image comes back as what it was."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.contracts.test_builder import Told
from tests.fakes.images import FakeArchiver, FakeStore
from tests.patience import patient
from tests.system.storage import FILES, TestStorage, why_not
from walt.common import room
from walt.common.errors import Invalid, LimitExceeded, NotFound
from walt.common.image_archives import Reading
from walt.server.adapters.podman.archiver import SkopeoArchiver
from walt.server.adapters.podman.skopeo import Skopeo
from walt.server.adapters.podman.store import PodmanStore
from walt.server.domain.images.interfaces import IImageArchiver, IImageStore
from walt.server.domain.images.model import StoredImage
from walt.server.runtime.process import Launcher, ProcessRunner
from walt.server.runtime.workers import WorkerPool

ONE, TWO = "ann/one:latest", "ann/two:latest"


class ArchiverContract(Contract):
    """`make` returns an archiver and its store with ONE and TWO; `other`, one without images."""

    @abstractmethod
    async def make(self) -> tuple[IImageArchiver, IImageStore]:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    async def other(self) -> tuple[IImageArchiver, IImageStore]:
        """Given by each implementation; the class tells what."""

    async def packed(self, archiver: IImageArchiver, store: IImageStore) -> bytes:
        """Return the archive of both images."""
        from twisted.internet import reactor

        place, told = archiver.open(), Told()
        images = {image.image_id: image for image in [await store.read(n) for n in (ONE, TWO)]}
        command = await archiver.pack(place, images, told)
        made = await ProcessRunner(reactor).run(command, timeout=60)
        await archiver.close(place)
        self.assertFalse(place.exists())
        self.assertTrue(told.lines)
        return made.stdout

    async def test_there_and_back(self) -> None:
        """The ids are the same in another store."""
        archiver, store = await self.make()
        verifyObject(IImageArchiver, archiver)
        data = await self.packed(archiver, store)
        elsewhere, empty = await self.other()
        place: Path = elsewhere.open()
        archive = place / "archive"
        archive.write_bytes(data)
        wanted = {name: await store.read(name) for name in (ONE, TWO)}
        await elsewhere.unpack(place, archive, [image.image_id for image in wanted.values()])
        for name, image in wanted.items():
            reference = empty.temporary()
            await elsewhere.fetch(place, image.image_id, reference, Told())
            found = await empty.examine(reference, name)
            self.assertEqual(
                (found.image_id, found.labels, found.contents),
                (image.image_id, image.labels, image.contents),
            )
            await empty.discard(reference)
            with self.assertRaises(NotFound):
                await empty.examine(reference, name)
        await elsewhere.close(place)
        self.assertFalse(place.exists())

    async def test_refused(self) -> None:
        """No archive, and one that has another image."""
        archiver, store = await self.make()
        data = await self.packed(archiver, store)
        for content in (b"nothing of that kind", data):
            place: Path = archiver.open()
            archive = place / "archive"
            archive.write_bytes(content)
            with self.assertRaises(Invalid):
                await archiver.unpack(place, archive, ["9" * 64])
            await archiver.close(place)


class FakeArchiverTests(ArchiverContract, TestCase):
    async def make(self) -> tuple[FakeArchiver, FakeStore]:
        labels = {"walt.node.models": "pc-x86-64"}
        store = FakeStore(
            StoredImage(ONE, "a" * 64, labels=labels), StoredImage(TWO, "b" * 64, labels=labels)
        )
        return FakeArchiver(store, Path(self.mktemp())), store

    async def other(self) -> tuple[FakeArchiver, FakeStore]:
        store = FakeStore()
        return FakeArchiver(store, Path(self.mktemp())), store


class SkopeoArchiverTests(ArchiverContract, TestCase):
    skip = why_not()
    timeout = patient(120)

    async def storage(self) -> tuple[TestStorage, SkopeoArchiver, PodmanStore]:
        """Make a storage of its own."""
        from twisted.internet import reactor

        place = TestStorage(reactor)
        self.addCleanup(place.close)
        workers = WorkerPool(reactor, Launcher(), network="host")
        self.addCleanup(workers.stop)
        skopeo = Skopeo(place.runner, place.storage, place.base / "layers")
        return (
            place, SkopeoArchiver(skopeo, workers, place.base / "archives"),
            PodmanStore(place.runner, place.storage, place.base / "cache.json"),
        )

    async def make(self) -> tuple[SkopeoArchiver, PodmanStore]:
        place, archiver, store = await self.storage()
        await place.make_image(ONE)
        # The second one has the layer of the first one, and docker's formats.
        context = place.base / "context"
        context.mkdir()
        (context / "more").write_bytes(b"more")
        (context / "Containerfile").write_text(f"FROM docker.io/{ONE}\nCOPY more /more\n")
        await place.podman(
            "build", "--quiet", "--pull=never", "--isolation", "chroot", "--format", "docker",
            "--tag", f"docker.io/{TWO}", str(context),
        )
        return archiver, store

    async def other(self) -> tuple[SkopeoArchiver, PodmanStore]:
        _, archiver, store = await self.storage()
        return archiver, store

    async def test_no_room(self) -> None:
        """Nothing is copied for which there is no room: neither out of the store nor into it."""
        archiver, store = await self.make()
        image = await store.read(ONE)
        data = await self.packed(archiver, store)
        place = archiver.open()
        (place / "archive").write_bytes(data)
        await archiver.unpack(place, place / "archive", [image.image_id])
        usage = room.shutil.disk_usage(place)
        self.patch(room.shutil, "disk_usage", lambda _: usage._replace(free=room.RESERVE + 1000))
        reference = store.temporary()
        for work in (
            archiver.pack(place, {image.image_id: image}, Told()),
            archiver.fetch(place, image.image_id, reference, Told()),
        ):
            with self.assertRaises(LimitExceeded):
                await work
        with self.assertRaises(NotFound):
            await store.examine(reference, ONE)
        self.assertFalse((place / "0").exists())
        await archiver.close(place)

    async def test_blobs_once(self) -> None:
        """What two images share is there once; other tools read the archive, too."""
        archiver, store = await self.make()
        data = await self.packed(archiver, store)
        name = next(iter(FILES))
        self.assertEqual(data.count(name.encode()), 1)
        place = Path(self.mktemp())
        place.mkdir()
        file = place / "oci.tar"
        file.write_bytes(data)
        reading = Reading()
        with file.open("rb") as stream:
            reading.all(stream)
        one, two = [await store.read(name) for name in (ONE, TWO)]
        self.assertEqual(reading.images, {
            image.image_id: [found.removeprefix("sha256:") for found in image.contents]
            for image in (one, two)
        })
        from twisted.internet import reactor

        copied = await ProcessRunner(reactor).run([
            "skopeo", "--insecure-policy", "inspect", "--config", f"oci-archive:{file}:{TWO}",
        ], timeout=60)
        self.assertIn(b"walt.node.models", copied.stdout)
