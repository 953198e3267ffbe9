"""Default images that the platform does not have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeCatalog, FakeRegistry, FakeStore
from walt.common.errors import Denied, Invalid, Unavailable
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.defaults import MissingDefaults
from walt.server.domain.images.model import Credentials, StoredImage
from walt.server.domain.images.places import Places

NAME = "waltplatform/rpi-b-default:latest"
IMAGE = StoredImage("", "e" * 64, labels={"walt.node.models": "rpi-b"})


class MissingDefaultsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = FakeStore()
        self.images = ImageService(self.store, FakeCatalog(), in_use=set)
        self.closed = FakeRegistry(self.store, "closed", Credentials("walter", "secret"))
        self.lab = FakeRegistry(self.store)

    def obtain(self, *places: FakeRegistry) -> Any:
        """Ask for the image."""
        defaults = MissingDefaults(self.images, self.store, Places(places))
        return Deferred.fromCoroutine(defaults.obtain(NAME))

    def test_from_the_first_place_that_has_it(self) -> None:
        """Places that refuse or lack it are passed over; nothing temporary is left."""
        self.lab.images[NAME] = IMAGE
        empty = FakeRegistry(self.store, "empty")
        self.successResultOf(self.obtain(self.closed, empty, self.lab))
        self.assertEqual(self.images.get(NAME).image_id, IMAGE.image_id)
        self.assertEqual(self.store.temporaries, {})

    def test_an_image_that_is_there(self) -> None:
        """No place is asked, even where the catalog did not know it yet."""
        self.store = FakeStore(replace(IMAGE, fullname=NAME))
        self.images = ImageService(self.store, FakeCatalog(), in_use=set)
        self.lab.error = Denied("asked")
        self.successResultOf(self.obtain(self.lab))
        self.assertTrue(self.images.has(NAME))

    def test_nobody_has_it(self) -> None:
        """The reason of each place is told."""
        self.lab.error = Invalid("it is broken")
        for places, text in (
            ((), "no registry configured"),
            ((self.closed, self.lab), "closed: refuses anonymous downloads; lab: it is broken"),
        ):
            error = self.failureResultOf(self.obtain(*places), Unavailable).value
            self.assertEqual(str(error), f"Could not download {NAME}: {text}")
        self.assertEqual(self.store.temporaries, {})

    def test_an_image_of_something_else(self) -> None:
        """What boots no node does not get the name."""
        self.lab.images[NAME] = StoredImage("", "0" * 64)
        self.failureResultOf(self.obtain(self.lab), Unavailable)
        self.assertFalse(self.images.has(NAME))
