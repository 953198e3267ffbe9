"""Image sessions: exclusivity, saving, what is left."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeCatalog, FakeContainers, FakeImageUsers, FakeStore
from tests.server.domain.images.test_catalog import Asking
from walt.common.errors import Busy, CommandFailed, Conflict, NotFound
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.sessions import ImageSession, ImageSessions

NAME, OTHER = "ann/image:latest", "ann/other:latest"
LABELS = {"walt.node.models": "pc-x86-64"}


class SessionTests(SynchronousTestCase):
    def setUp(self) -> None:
        """One image, which may be opened, and one with 128 layers."""
        self.store = FakeStore(
            StoredImage(NAME, "a" * 64, labels=LABELS, layers=("l/A",)),
            StoredImage("ann/full:latest", "f" * 64, labels=LABELS, layers=("l/A",) * 128),
        )
        self.containers, self.users = FakeContainers(self.store), FakeImageUsers()
        self.images = ImageService(self.store, FakeCatalog(), in_use=set)
        self.now(self.images.refresh())
        self.sessions = ImageSessions(self.images, self.containers, self.users)
        self.requester = Asking()

    def now(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def open(self, fullname: str = NAME) -> ImageSession:
        session: ImageSession = self.now(self.sessions.open(fullname, "shell"))
        return session

    def test_exclusive(self) -> None:
        """A second task is told which one holds the image; closing frees it."""
        session = self.open()
        refused = self.failureResultOf(
            Deferred.fromCoroutine(self.sessions.open(NAME, "transfer")), Busy
        )
        self.assertIn("shell", str(refused.value))
        self.successResultOf(session.close())
        self.successResultOf(session.close())
        self.assertEqual(self.containers.running, {})
        self.successResultOf(self.open().close())

    def test_refused(self) -> None:
        """Unknown images, images with too many layers, containers that do not start."""
        self.failureResultOf(Deferred.fromCoroutine(self.sessions.open("a/b:c", "x")), NotFound)
        full = self.failureResultOf(
            Deferred.fromCoroutine(self.sessions.open("ann/full:latest", "x")), Conflict
        )
        self.assertIn("walt image squash full", str(full.value))

        async def fail(*_: Any) -> str:
            raise CommandFailed("no")

        self.patch(self.containers, "start", fail)
        self.failureResultOf(Deferred.fromCoroutine(self.sessions.open(NAME, "x")), CommandFailed)
        self.assertIsNone(self.images.task_of(NAME))

    def test_saved_under_its_name(self) -> None:
        """The image changes, its nodes follow, the requester is told."""
        session = self.open()
        self.now(session.run("echo new > /file"))
        self.assertTrue(self.now(session.save(NAME, self.requester)))
        self.successResultOf(session.close())
        self.assertNotEqual(self.images.get(NAME).image_id, "a" * 64)
        self.assertEqual(self.users.followed, [NAME])
        self.assertEqual(self.requester.lines, ["Image image was updated."])
        self.assertEqual(
            self.containers.events, [f"start {NAME} None", f"commit {NAME}", "remove"]
        )
        self.failureResultOf(
            Deferred.fromCoroutine(session.save(NAME, self.requester)), Conflict
        )

    def test_files_in_memory(self) -> None:
        """Files that no image can have are named: a transfer fails, a shell is saved without."""
        self.containers.in_memory = [f"/run/{number}" for number in range(7)]
        session = self.now(self.sessions.open(NAME, "transfer"))
        refused = self.failureResultOf(
            Deferred.fromCoroutine(session.save(NAME, self.requester)), Conflict
        )
        self.assertIn("/run/0, /run/1, /run/2, /run/3, /run/4 and 2 more lie", str(refused.value))
        self.assertEqual(self.images.get(NAME).image_id, "a" * 64)
        self.successResultOf(session.close())
        session = self.open()
        self.now(session.prepare_shell(self.requester))
        self.successResultOf(session.freeze())
        self.now(session.save(NAME, self.requester))
        self.assertNotEqual(self.images.get(NAME).image_id, "a" * 64)
        self.assertIn("not saved", self.requester.remarks[-1])

    def test_saved_under_another_name(self) -> None:
        """The image that was opened stays what it was."""
        session = self.open()
        with self.images.task(OTHER, "clone"):
            self.failureResultOf(Deferred.fromCoroutine(session.save(OTHER, self.requester)), Busy)
        session = self.reopened(session)
        self.now(session.save(OTHER, self.requester))
        self.assertEqual(self.images.get(NAME).image_id, "a" * 64)
        self.assertTrue(self.images.has(OTHER))
        self.assertEqual(self.requester.lines, ["New image other was saved."])

    def reopened(self, session: ImageSession) -> ImageSession:
        self.successResultOf(session.close())
        return self.open()

    def test_requester_leaves_while_saving(self) -> None:
        """The commit goes on; the container goes after it, then the image is free."""
        session = self.open()
        self.containers.committing = Deferred()
        saving = Deferred.fromCoroutine(session.save(NAME, self.requester))
        saving.addErrback(lambda _: None)
        saving.cancel()
        closing = session.close()
        self.assertNoResult(closing)
        self.assertIn("walt-session-00000001", self.containers.running)
        self.containers.committing.callback(None)
        self.successResultOf(closing)
        self.assertNotEqual(self.images.get(NAME).image_id, "a" * 64)
        self.assertEqual(self.containers.running, {})

    def test_requester_leaves_while_the_system_starts(self) -> None:
        """The container of before goes, and the one that takes its place."""
        session = self.open()
        self.containers.answers["[ -x /bin/bash"] = b"system\n"
        self.containers.removing = gate = Deferred()
        preparing = Deferred.fromCoroutine(session.prepare_shell(self.requester))
        self.assertEqual(len(self.containers.running), 2)
        preparing.cancel()
        closing = session.close()
        self.assertNoResult(closing)
        gate.callback(None)
        self.failureResultOf(preparing, CancelledError)
        self.successResultOf(closing)
        self.assertEqual(self.containers.running, {})
        self.assertIsNone(self.images.task_of(NAME))

    def test_shells(self) -> None:
        """bash when there is one; the whole system when the image can."""
        session = self.open()
        self.now(session.prepare_shell(self.requester))
        self.assertIn("exec /bin/sh", session.shell[-1])
        self.containers.answers["[ -x /bin/bash"] = b"bash\nsystem\ncpuinfo\n"
        self.containers.answers["head"] = b"cpu"
        self.now(session.prepare_shell(self.requester))
        self.assertIn("exec /bin/bash", session.shell[-1])
        self.assertIn("operating system", self.requester.lines[-1])
        self.assertEqual(
            self.containers.events[-2:],
            [f"start {NAME} /bin/walt-image-shell-start", "remove"],
        )
        self.containers.answers["/bin/walt-image-shell-shutdown"] = b""
        self.now(session.save(NAME, self.requester))
        self.now(self.sessions.stop())
        self.assertEqual(self.containers.running, {})

    def test_commands(self) -> None:
        """Vectors of programs to start."""
        session = self.open()
        container = "walt-session-00000001"
        self.assertEqual(session.command(["ls"]), ["exec", container, "ls"])
        self.assertEqual(
            session.script("tar x"), ["exec", container, "sh", "-c", "tar x"]
        )
