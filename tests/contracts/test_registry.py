"""The port IRegistry, on the fake and on a real docker-registry with skopeo."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.images import FakeRegistry, FakeStore
from tests.patience import patient
from tests.system import registry, storage
from tests.system.registry import TestJfrog, TestRegistry
from tests.system.storage import TestStorage
from walt.common.errors import Denied, NotFound, Unavailable
from walt.server.adapters.podman.registry import Location, SkopeoRegistry
from walt.server.adapters.podman.skopeo import Skopeo
from walt.server.adapters.podman.store import PodmanStore
from walt.server.domain.images.interfaces import IImageStore, IRegistry
from walt.server.domain.images.model import Credentials, RegistryInfo, StoredImage
from walt.server.domain.requester import NobodyWaits
from walt.server.runtime.process import Launcher
from walt.server.runtime.workers import WorkerPool

NAME = "ann/image:latest"
ACCOUNT = Credentials("walter", "secret")
WRONG = Credentials("walter", "wrong")


class RegistryContract(Contract):
    """`make` returns an empty registry with accounts, and a store with the image NAME."""

    @abstractmethod
    async def make(self) -> tuple[IRegistry, IImageStore]:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    async def end(self) -> None:
        """Make the registry unreachable."""

    async def test_life(self) -> None:
        """Pushed, found, pulled back; wrong accounts and absent images are told apart."""
        place, store = await self.make()
        verifyObject(IRegistry, place)
        nobody = NobodyWaits()
        await place.login(ACCOUNT)
        for refused in (
            place.login(WRONG), place.inspect("walter/image:latest", WRONG),
            place.inspect("walter/image:latest", None), place.search(None, 10.0),
            place.push(NAME, "walter/image:latest", WRONG, nobody),
        ):
            with self.assertRaises(Denied):
                await refused
        with self.assertRaises(NotFound):
            await place.inspect("walter/image:latest", ACCOUNT)
        await place.push(NAME, "walter/image:latest", ACCOUNT, nobody)
        image = await place.inspect("walter/image:latest", ACCOUNT)
        self.assertEqual(image.labels["walt.node.models"], "pc-x86-64")
        await place.push_index("walter/walt_metadata:latest", "metadata", "e30=", ACCOUNT, nobody)
        index = await place.inspect("walter/walt_metadata:latest", ACCOUNT)
        self.assertEqual(index.labels["metadata"], "e30=")
        found = {
            one.fullname for one in await place.search_user("walter", ACCOUNT, 10.0)
            if "walt.node.models" in one.labels
        }
        self.assertEqual(found, {"walter/image:latest"})
        reference = store.temporary()
        await place.pull("walter/image:latest", reference, ACCOUNT, nobody)
        pulled = await store.examine(reference, "bob/copy:latest")
        self.assertEqual(pulled.models, ("pc-x86-64",))
        await store.promote(reference, "bob/copy:latest")
        with self.assertRaises(NotFound):
            await place.pull("walter/none:latest", store.temporary(), ACCOUNT, nobody)
        self.assertEqual({one.fullname for one in await store.scan()}, {NAME, "bob/copy:latest"})
        await self.end()
        for failing in (place.inspect("a/b:c", ACCOUNT), place.login(ACCOUNT)):
            with self.assertRaises(Unavailable):
                await failing


class FakeRegistryTests(RegistryContract, TestCase):
    async def make(self) -> tuple[FakeRegistry, FakeStore]:
        store = FakeStore(StoredImage(NAME, "a" * 64, labels={"walt.node.models": "pc-x86-64"}))
        self.registry = FakeRegistry(store, account=ACCOUNT)
        return self.registry, store

    async def end(self) -> None:
        self.registry.error = Unavailable("it is gone")


class SkopeoRegistryTests(RegistryContract, TestCase):
    skip = storage.why_not() or registry.why_not()
    timeout = patient(120)
    info = RegistryInfo("lab", "", authenticated=True)

    def registry(self, base: Path) -> TestRegistry:
        """Return a registry that is not started yet."""
        from twisted.internet import reactor

        return TestRegistry(reactor, base, accounts=True)

    @property
    def port(self) -> int:
        """Where it is reached."""
        return self.real.port

    async def make(self) -> tuple[SkopeoRegistry, PodmanStore]:
        from twisted.internet import reactor

        place = TestStorage(reactor)
        self.addCleanup(place.close)
        self.real = self.registry(place.base)
        self.addCleanup(self.end)
        await self.real.start()
        await place.make_image(NAME)
        workers = WorkerPool(reactor, Launcher(), network="host")
        self.addCleanup(workers.stop)
        made = SkopeoRegistry(
            place.runner, workers, workers, place.storage,
            Skopeo(place.runner, place.storage, place.base / "scratch"), self.info,
            Location("127.0.0.1", self.port, "http"), place.base / "secrets",
        )
        self.assertIsNone(await made.stored_credentials())
        return made, PodmanStore(place.runner, place.storage, place.base / "cache.json")

    async def end(self) -> None:
        await self.real.stop()


class JfrogTests(SkopeoRegistryTests):
    """A front that behaves as JFrog Artifactory, and a real registry behind it."""

    info = RegistryInfo("frog", "", authenticated=True, repository="walter")

    def registry(self, base: Path) -> TestRegistry:
        """Return a registry that is not started yet."""
        from twisted.internet import reactor

        return TestJfrog(reactor, base, "walter", accounts=True)

    @property
    def port(self) -> int:
        """Where it is reached."""
        assert isinstance(self.real, TestJfrog)
        return self.real.front_port
