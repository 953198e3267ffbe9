"""Images that WalT 5 to 10 left in podman's storage of the machine."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.patience import patient
from tests.system.storage import TestStorage, why_not
from walt.common.errors import NotFound, Unavailable
from walt.server.adapters.podman.former import FormerStorage
from walt.server.adapters.podman.skopeo import Skopeo
from walt.server.adapters.podman.store import PodmanStore
from walt.server.domain.images.interfaces import IImageSource
from walt.server.domain.requester import NobodyWaits

NAME = "alice/tools:latest"


class FormerStorageTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_copy(self) -> None:
        """An image is copied from one storage into the other, which has its own name for it."""
        former, ours = TestStorage(reactor), TestStorage(reactor)
        for place in (former, ours):
            self.addCleanup(place.close)
        await former.make_image(NAME)
        source = FormerStorage(
            ours.runner, Skopeo(ours.runner, ours.storage, ours.base / "scratch"), former.storage
        )
        verifyObject(IImageSource, source)
        self.assertEqual(
            (await source.inspect(NAME, None)).labels["walt.node.models"], "pc-x86-64"
        )
        store = PodmanStore(ours.runner, ours.storage, ours.base / "cache.json")
        reference = store.temporary()
        await source.pull(NAME, reference, None, NobodyWaits())
        self.assertEqual((await store.examine(reference, NAME)).models, ("pc-x86-64",))
        with self.assertRaises(NotFound):
            await source.inspect("alice/none:latest", None)
        with self.assertRaises(NotFound):
            await source.pull("alice/none:latest", store.temporary(), None, NobodyWaits())
        (former.storage.graph_root / "overlay-images" / "images.json").write_text(
            f"docker.io/{NAME}"
        )
        with self.assertRaises(Unavailable):
            await source.inspect(NAME, None)
