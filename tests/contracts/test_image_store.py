"""The port IImageStore, on the fake and on a real podman storage."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.fakes.images import FakeCatalog, FakeExporter, FakeMounter, FakeStore
from tests.patience import patient
from tests.places import ON_DISK
from walt.common.errors import NotFound
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.store import PodmanStore
from walt.server.domain.images.interfaces import (
    IImageCatalog,
    IImageMounter,
    IImageStore,
    INfsExporter,
)
from walt.server.domain.images.model import StoredImage
from walt.server.runtime.process import ProcessRunner

NAME = "ann/image:latest"


class StoreContract:
    """What every store does; `make` returns one that holds the image NAME."""

    @abstractmethod
    async def make(self) -> IImageStore:
        """Given by each implementation; the class tells what."""

    async def names(self, store: IImageStore) -> dict[str, StoredImage]:
        return {image.fullname: image for image in await store.scan()}

    async def test_tag_and_untag(self) -> None:
        """A second name is the same image; the image goes with its last name."""
        store = await self.make()
        self.assertTrue(verifyObject(IImageStore, store))
        (image,) = await store.scan()
        self.assertEqual((image.fullname, image.models), (NAME, ("pc-x86-64",)))
        await store.tag(image.image_id, "bob/copy:v1")
        names = await self.names(store)
        self.assertEqual(set(names), {NAME, "bob/copy:v1"})
        self.assertEqual(names["bob/copy:v1"].image_id, image.image_id)
        self.assertEqual(names["bob/copy:v1"].layers, image.layers)
        await store.untag(NAME)
        self.assertEqual(set(await self.names(store)), {"bob/copy:v1"})
        with self.assertRaises(NotFound):
            await store.untag(NAME)
        await store.untag("bob/copy:v1")
        self.assertEqual(await store.scan(), [])

    async def test_a_kept_image_survives_its_names(self) -> None:
        """keep() holds the image without showing a name; release() may come twice."""
        store = await self.make()
        (image,) = await store.scan()
        await store.keep(image.image_id)
        await store.keep(image.image_id)
        self.assertEqual(set(await self.names(store)), {NAME})
        await store.untag(NAME)
        self.assertEqual(await store.scan(), [])
        await store.tag(image.image_id, NAME)
        await store.release(image.image_id)
        await store.release(image.image_id)
        self.assertEqual(set(await self.names(store)), {NAME})


class FakeStoreTests(StoreContract, TestCase):
    async def make(self) -> FakeStore:
        return FakeStore(
            StoredImage(NAME, "a" * 64, labels={"walt.node.models": "pc-x86-64"}, layers=("l/A",))
        )

    def test_fakes_provide_their_ports(self) -> None:
        """The other fakes have the methods of their interfaces."""
        for port, fake in (
            (IImageCatalog, FakeCatalog()), (IImageMounter, FakeMounter()),
            (INfsExporter, FakeExporter()),
        ):
            self.assertTrue(verifyObject(port, fake))


class PodmanStoreTests(StoreContract, TestCase):
    skip = None if os.geteuid() == 0 and shutil.which("podman") else "needs root and podman"
    timeout = patient(90)

    async def make(self) -> PodmanStore:
        from twisted.internet import reactor

        base = Path(tempfile.mkdtemp(prefix="wtst-", dir=ON_DISK))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        runner = ProcessRunner(reactor)
        storage = Storage.private(base / "s", base / "r")
        for directory in (base / "s", base / "r"):
            directory.mkdir()
        archive = base / "empty.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add("/etc/hostname", "etc/hostname")
        for name, label in ((NAME, "walt.node.models=pc-x86-64"), ("ann/other:latest", "x=y")):
            await runner.run(storage.podman(
                "import", "--quiet", "--change", f"LABEL {label}", str(archive),
                f"docker.io/{name}",
            ))
        store = PodmanStore(runner, storage, base / "cache" / "images.metadata")
        (image,) = await store.scan()
        overlay = storage.graph_root / "overlay"
        self.assertTrue(all((overlay / layer).is_dir() for layer in image.layers))
        self.assertGreater(image.created_ts, 1e9)
        self.assertEqual([one[:7] for one in image.contents], ["sha256:"])
        # A second store finds the metadata in the cache, and a bad cache is dropped.
        (base / "cache" / "images.metadata").write_text("{bad")
        return PodmanStore(runner, storage, base / "cache" / "images.metadata")

    async def test_a_name_is_listed_once(self) -> None:
        """An image of hundreds of names is not told with all of them for each."""
        store = await self.make()
        (image,) = await store.scan()
        for number in range(3):
            await store.tag(image.image_id, f"ann/copy{number}:latest")
        run, told = store._runner.run, list[int]()

        async def counted(*words: Any, **options: Any) -> Any:
            result = await run(*words, **options)
            told.append(result.stdout.count(b"ann/copy1"))
            return result

        self.patch(store._runner, "run", counted)
        self.assertEqual(len(await store.scan()), 4)
        self.assertEqual(sum(told), 1)
