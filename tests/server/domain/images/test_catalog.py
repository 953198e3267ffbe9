"""Working sets, names and first images of users."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeCatalog, FakeStore
from walt.common.errors import Busy, Conflict, Invalid, NotFound, Unavailable, WaltError
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.requester import NobodyWaits, acting


def image(name: str, digit: str = "a", models: str = "pc-x86-64", **more: str) -> StoredImage:
    labels = {"walt.node.models": models, **{k.replace("_", "."): v for k, v in more.items()}}
    return StoredImage(name, digit * 64, size_kib=2, labels=labels)


PC = StoredImage(
    "waltplatform/pc-x86-64-default:latest", "d" * 64,
    labels={"walt.node.models": "pc-x86-64,pc-x86-32", "walt.image.preferred-name": "pc-debian"},
)


class Asking(NobodyWaits):
    def __init__(self, username: str = "ann") -> None:
        self.username = username
        self.lines: list[str] = []
        self.remarks: list[str] = []

    def stdout(self, text: str) -> None:
        self.lines.append(text)

    def stderr(self, text: str) -> None:
        self.remarks.append(text)


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.used: set[str] = set()
        self.models = ["pc-x86-64"]

    def make(self, *images: StoredImage, catalog: tuple[str, ...] = ()) -> ImageService:
        self.store, self.catalog = FakeStore(*images), FakeCatalog(*catalog)
        service = ImageService(
            self.store, self.catalog, in_use=lambda: self.used, node_models=lambda: self.models
        )
        self.run_now(service.refresh())
        return service

    def run_now(self, coroutine):  # type: ignore[no-untyped-def]
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def refused(self, coroutine, error: type[WaltError]) -> None:  # type: ignore[no-untyped-def]
        self.failureResultOf(Deferred.fromCoroutine(coroutine), error)

    def test_another_image_under_a_name(self) -> None:
        """Who makes it did it; what a look at the store finds is nobody's deed."""
        self.addCleanup(acting.set, None)
        service = self.make(image("ann/a:latest"))
        acting.set("ann")
        for change in (service.renew("ann/a:latest"), service.refresh()):
            self.run_now(change)
        self.store.names["ann/a:latest"] = image("ann/a:latest", "b")
        self.run_now(service.renew("ann/a:latest"))
        self.store.names["ann/a:latest"] = image("ann/a:latest", "c")
        with service.task("ann/a:latest", "save"):  # it will put what it makes
            self.run_now(service.refresh())
        acting.set("bob")
        self.run_now(service.refresh())
        self.assertEqual(self.catalog.puts, [
            ("ann/a:latest", "a" * 64, None), ("ann/a:latest", "b" * 64, "ann"),
            ("ann/a:latest", "c" * 64, None),
        ])

    def test_catalog_follows_the_store(self) -> None:
        """New names are recorded; lost ones are forgotten unless nodes use them."""
        self.used = {"ann/lost-used:latest"}
        self.make(image("ann/a:latest"), catalog=("ann/lost:latest", "ann/lost-used:latest"))
        self.assertEqual(self.catalog.names, {"ann/a:latest", "ann/lost-used:latest"})

    def test_find_scans_again(self) -> None:
        """A name unknown so far is looked for in the store before it is an error."""
        service = self.make()
        self.store.names["ann/new:latest"] = image("ann/new:latest")
        self.assertEqual(self.run_now(service.find("ann", "new")).fullname, "ann/new:latest")
        self.refused(service.find("ann", "ghost"), NotFound)
        for bad in ("A", "a:b:c", "../x", "default", "-x", ""):
            self.refused(service.find("ann", bad), Invalid)

    def test_first_contact(self) -> None:
        """One clone serves all the models of its image; the second time there is none."""
        self.models = ["pc-x86-64", "pc-x86-32", "rpi-b"]
        service, asking = self.make(PC), Asking()
        (clone,) = self.run_now(service.first_contact(asking))
        self.assertEqual(clone.fullname, "ann/pc-debian:latest")
        self.assertEqual(clone.models, ("pc-x86-32", "pc-x86-64"))
        self.assertEqual((len(asking.remarks), asking.lines), (1, []))
        self.assertIn("pc-x86-[32|64]", asking.remarks[0])
        self.assertEqual(self.run_now(service.first_contact(asking)), [])
        self.assertIn("ann/pc-debian:latest", self.catalog.names)

    def test_a_clone_without_preferred_name(self) -> None:
        """The clone is called after the model when the image says nothing."""
        service = self.make(image("waltplatform/pc-x86-64-default:latest"))
        (clone,) = self.run_now(service.clone_defaults("ann", ["pc-x86-64"]))
        self.assertEqual(clone.fullname, "ann/pc-x86-64-default:latest")

    def test_tables(self) -> None:
        """Own images always; others and defaults when all are asked for."""
        self.used = {"ann/a:latest"}
        service = self.make(PC, image("ann/a:latest"), image("bob/b:v2", "b"))
        rows = self.run_now(service.tables(Asking(), show_all=False, refresh=False))
        self.assertEqual(rows["own"], [{
            "name": "a", "fullname": "ann/a:latest", "user": "ann", "in_use": True,
            "id": rows["own"][0]["id"], "created": rows["own"][0]["created"], "size": 2048,
            "compatibility": ["pc-x86-64"], "digest": "", "clonable_link": "walt:ann/a",
        }])
        self.assertIsInstance(rows["own"][0]["created"], float)
        self.assertEqual((rows["others"], rows["default"], rows["hidden"]), ([], [], 2))
        rows = self.run_now(service.tables(Asking(), show_all=True, refresh=True))
        self.assertEqual(rows["others"][0]["clonable_link"], "walt:bob/b:v2")
        self.assertEqual(rows["default"][0]["name"], "pc-x86-64-default")

    def test_check(self) -> None:
        """`default` passes where it is allowed, otherwise it is not a name."""
        service = self.make(PC)
        self.assertIsNone(self.run_now(service.check("default", Asking(), default_allowed=True)))
        self.refused(service.check("default", Asking(), default_allowed=False), Invalid)
        found = self.run_now(service.check("pc-debian", Asking(), default_allowed=True))
        self.assertEqual(found.image_id, PC.image_id)

    def test_rename_duplicate_remove(self) -> None:
        """Names move in store and catalog together; used and taken names are refused."""
        service = self.make(image("ann/a:latest"), image("ann/b:latest", "b"))
        self.run_now(service.duplicate("ann", "a", "c"))
        self.refused(service.duplicate("ann", "a", "b"), Conflict)
        self.run_now(service.rename("ann", "c", "d:v1"))
        self.assertEqual(
            set(self.store.names), {"ann/a:latest", "ann/b:latest", "ann/d:v1"}
        )
        self.assertEqual(self.catalog.names, set(self.store.names))
        self.used = {"ann/b:latest"}
        self.refused(service.rename("ann", "b", "e"), Conflict)
        self.refused(service.remove("ann", "b"), Conflict)
        self.run_now(service.remove("ann", "a"))
        self.assertFalse(service.has("ann/a:latest"))
        self.assertTrue(service.has("ann/d:v1"))

    def test_looked_at_meanwhile(self) -> None:
        """Names that come and go while the disk is waited for are the deeds of those who ask."""
        self.addCleanup(acting.set, None)
        service = self.make(image("ann/a:latest"))
        acting.set("ann")
        disk: Deferred[None] = Deferred()
        self.store.after = disk
        going = Deferred.fromCoroutine(service.rename("ann", "a", "b"))
        self.run_now(service.refresh())
        self.assertEqual(self.catalog.puts[1:], [])
        self.store.after = Deferred()
        disk.callback(None)
        self.assertEqual(self.catalog.puts[1:], [("ann/b:latest", "a" * 64, "ann")])
        self.run_now(service.refresh())
        self.assertIn("ann/a:latest", self.catalog.names)
        self.store.after.callback(None)
        self.successResultOf(going)
        self.assertEqual(self.catalog.names, {"ann/b:latest"})

    def test_requester_leaves(self) -> None:
        """A name that was given or taken is recorded all the same; it is held until then."""
        for change, left in (
            (lambda one: one.duplicate("ann", "a", "b"), {"ann/a:latest", "ann/b:latest"}),
            (lambda one: one.rename("ann", "a", "b"), {"ann/b:latest"}),
            (lambda one: one.remove("ann", "a"), set()),
            (lambda one: one.change_owner("bob", "ann"), {"bob/a:latest"}),
            (lambda one: one.give_default("ann", PC.fullname), {
                "ann/a:latest", "ann/pc-debian:latest",
            }),
        ):
            service = self.make(image("ann/a:latest"), PC)
            disk: Deferred[None] = Deferred()
            self.store.after = disk
            going = Deferred.fromCoroutine(change(service))
            going.cancel()
            self.assertNoResult(going)
            self.assertTrue([name for name in left | {"ann/a:latest"} if service.task_of(name)])
            self.store.after = None
            disk.callback(None)
            self.failureResultOf(going, CancelledError)
            for names in (
                self.store.names, self.catalog.names, {one.fullname for one in service.all()},
            ):
                self.assertEqual(set(names), left | {PC.fullname})
            self.assertFalse([name for name in left | {"ann/a:latest"} if service.task_of(name)])

    def test_change_of_owner(self) -> None:
        """All images of a user move, or none does."""
        service = self.make(image("bob/a:latest"), image("bob/b:latest", "b"))
        self.used = {"bob/b:latest"}
        self.refused(service.change_owner("ann", "bob"), Conflict)
        self.assertIn("bob/a:latest", self.store.names)
        self.used = set()
        self.run_now(service.change_owner("ann", "bob"))
        self.assertEqual(set(self.store.names), {"ann/a:latest", "ann/b:latest"})
        self.refused(service.change_owner("ann", "ann"), Invalid)
        self.refused(service.change_owner("ann", "ghost"), NotFound)

    def test_one_task_per_image(self) -> None:
        """A second task is refused with the name of the first, until that one ends."""
        service = self.make(image("ann/a:latest"))
        with service.task("ann/a:latest", "shell"):
            self.refused(service.remove("ann", "a"), Busy)
            self.assertEqual(service.task_of("ann/a:latest"), "shell")
        self.assertIsNone(service.task_of("ann/a:latest"))
        self.run_now(service.remove("ann", "a"))

    def test_images_of_nodes(self) -> None:
        """Names sharing an id are one mount; names without image are left out."""
        service = self.make(image("ann/a:latest"), image("bob/a:latest"))
        self.assertEqual(
            set(service.by_id(["ann/a:latest", "bob/a:latest", "bob/none:latest"])), {"a" * 64}
        )
