"""Cloning: whatever fails, the working set is what it was."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeCatalog, FakeImageUsers, FakeRegistry, FakeStore
from tests.server.domain.images.test_catalog import Asking
from walt.common.errors import Conflict, CredentialsNeeded, Denied, Invalid, Unavailable
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.clone import Cloner, CloneRequest
from walt.server.domain.images.model import Credentials, StoredImage
from walt.server.domain.images.places import Places
from walt.server.domain.images.catalog import ImageService

LABELS = {"walt.node.models": "pc-x86-64"}
MINE, HIS = "ann/img:latest", "bob/img:latest"
ACCOUNT = Credentials("walter", "secret")


class CloneTests(SynchronousTestCase):
    def setUp(self) -> None:
        """An image of ann, one of bob, others on two registries."""
        self.store = FakeStore(
            StoredImage(MINE, "a" * 64, labels=LABELS), StoredImage(HIS, "b" * 64, labels=LABELS)
        )
        self.users = FakeImageUsers()
        self.images = ImageService(self.store, FakeCatalog(), in_use=set)
        self.now(self.images.refresh())
        self.lab = FakeRegistry(self.store)
        self.closed = FakeRegistry(self.store, "closed", ACCOUNT)
        for place in (self.lab, self.closed):
            place.images["eve/img:latest"] = StoredImage("", "e" * 64, labels=LABELS)
        self.lab.images["eve/rpi:latest"] = StoredImage(
            "", "f" * 64, labels={"walt.node.models": "rpi-b"}
        )
        self.lab.images["eve/plain:latest"] = StoredImage("", "0" * 64)
        changes = ImageChanges(self.images, self.store, self.users, None)
        self.cloner = Cloner(changes, Places([self.lab, self.closed]), 11)
        self.requester = Asking()

    def now(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def clone(self, link: str, name: str = "", force: bool = False, **given: Credentials) -> Any:
        return Deferred.fromCoroutine(
            self.cloner.clone(CloneRequest(link, name, force, "HINT"), self.requester, given)
        )

    def ids(self) -> dict[str, str]:
        return {image.fullname: image.image_id[0] for image in self.images.all()}

    def test_cases(self) -> None:
        """From here and from elsewhere, to a new name and over another image."""
        for link, name, target, digit in (
            ("walt:bob/img", "one", "ann/one:latest", "b"),
            ("lab:eve/img", "two", "ann/two:latest", "e"),
            ("lab:eve/img", "", MINE, "e"), ("walt:bob/img", "", MINE, "b"),
        ):
            self.assertTrue(self.successResultOf(self.clone(link, name, force=True)))
            self.assertEqual(self.ids()[target], digit, link)
        self.assertEqual(self.ids()[HIS], "b")
        self.assertEqual(self.store.temporaries, {})
        self.assertIn(MINE, self.users.followed)

    def test_refused(self) -> None:
        """Nothing changes; the reason says what to do."""
        before = self.ids()
        self.users.nodes[MINE] = {"n1": "pc-x86-64"}
        for error, text, link, name in (
            (Conflict, "HINT", "lab:eve/img", ""), (Conflict, "will reboot", "lab:eve/img", ""),
            (Invalid, "already", "walt:ann/img", "x"), (Invalid, "no label", "lab:eve/plain", ""),
            (CredentialsNeeded, "closed", "closed:eve/img", "x"),
            (Invalid, "not a valid image name", "lab:eve/img", "default"),
            (Invalid, "not for them", "lab:eve/rpi", "img"),
        ):
            refused = self.failureResultOf(self.clone(link, name), error)
            self.assertIn(text, str(refused.value))
        self.failureResultOf(self.clone("lab:eve/rpi", "img", force=True), Invalid)
        self.failureResultOf(
            self.clone("closed:eve/img", "x", closed=Credentials("w", "wrong")), Denied
        )
        self.assertEqual(self.ids(), before)
        self.assertEqual(self.store.temporaries, {})
        self.assertTrue(self.successResultOf(self.clone("closed:eve/img", "x", closed=ACCOUNT)))

    def test_failing_download(self) -> None:
        """A registry that fails on the way leaves the image that was to be replaced."""
        before = self.ids()

        async def fail(*_: Any) -> None:
            raise Unavailable("connection reset")

        self.patch(self.lab, "pull", fail)
        failed = self.failureResultOf(self.clone("lab:eve/img", "", force=True), Unavailable)
        self.assertIn("registry lab: connection reset", str(failed.value))
        self.assertEqual(self.ids(), before)
        self.assertIsNone(self.images.task_of(MINE))
