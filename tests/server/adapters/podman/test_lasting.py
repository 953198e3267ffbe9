"""What a power failure leaves of a storage of podman: names of layers, names on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.server.domain.images.test_catalog import Asking
from tests.server.test_injection import Recorder
from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.podman.containers import Engine, PodmanContainers
from walt.server.adapters.podman.lasting import mend_layers
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.podman.surroundings import Surroundings
from walt.server.runtime.process import ProcessResult

SHORT = "ABCDEFGHIJKLMNOPQRSTUVWX23"
SYNC = ["sync", "--file-system", "--", "/s/containers/storage"]


class MendTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.overlay = Path(self.mktemp())
        (self.overlay / "l").mkdir(parents=True)

    def layer(self, name: str, short: str, linked: str | None) -> None:
        """Make a layer with a file of its short name, and a link of some name."""
        place = self.overlay / name
        (place / "diff").mkdir(parents=True)
        (place / "link").write_text(short)
        if linked is not None:
            os.symlink(f"../{name}/diff", self.overlay / "l" / linked)

    def reached(self, name: str) -> bool:
        """Tell whether a layer is reached by the short name in its file."""
        short = (self.overlay / name / "link").read_text()
        return len(short) == 26 and os.path.samefile(
            self.overlay / "l" / short, self.overlay / name / "diff"
        )

    def test_whole(self) -> None:
        """Nothing is done where nothing lacks, nor where there is no storage yet."""
        self.layer("one", SHORT, SHORT)
        self.assertEqual(mend_layers(self.overlay), [])
        self.assertEqual(mend_layers(self.overlay / "none"), [])

    def test_cut(self) -> None:
        """An empty file, no link, neither; a layer keeps the name that others know it by."""
        self.layer("empty", "", SHORT)
        self.layer("no-link", "Z" * 26, None)
        self.layer("neither", "", None)
        self.layer("zeros", "\0" * 26, None)
        (self.overlay / "no-file/diff").mkdir(parents=True)
        (self.overlay / "l/stray").write_text("")
        (self.overlay / "no-layer").mkdir()
        damaged = ["empty", "neither", "no-file", "no-link", "zeros"]
        self.assertEqual(mend_layers(self.overlay), damaged)
        for name in damaged:
            self.assertTrue(self.reached(name), name)
        self.assertEqual((self.overlay / "empty/link").read_text(), SHORT)
        self.assertEqual(mend_layers(self.overlay), [])


class OrderTests(SynchronousTestCase):
    """An image has its name when the disk has the image; who asked is answered after that."""

    storage = Storage(Path("/s/containers/storage"), Path("/r"))

    def commands(self, work: Callable[[Recorder], Any]) -> list[list[str]]:
        """Return what was run: sync, or the words of podman that are about images."""
        runner = Recorder()
        self.successResultOf(Deferred.fromCoroutine(work(runner)))
        found = []
        for argv in runner.ran:
            if argv[0] == "sync":
                found.append(argv)
            elif "commit" in argv:
                found.append(["commit"])
            elif argv[7:8] == ["image"]:
                found.append(argv[8:9])
        return found

    def test_names(self) -> None:
        """Names that are given, taken, and moved to what was built."""
        def store(runner: Recorder) -> PodmanStore:
            return PodmanStore(runner, self.storage, Path(self.mktemp()))

        self.assertEqual(
            self.commands(lambda runner: store(runner).tag("a" * 64, "ann/x:latest")),
            [["tag"], SYNC],
        )
        self.assertEqual(
            self.commands(lambda runner: store(runner).untag("ann/x:latest"))[-2:],
            [["rm"], SYNC],
        )
        self.assertEqual(
            self.commands(lambda runner: store(runner).promote("localhost/t:1", "ann/x:latest")),
            [SYNC, ["exists"], ["tag"], ["tag"], ["rm"], SYNC],
        )

    def test_saved(self) -> None:
        """A container whose changes become an image."""
        place = Path(self.mktemp())
        self.assertEqual(
            self.commands(lambda runner: PodmanContainers(
                runner, self.storage, Engine(None, ()), place, place, Surroundings()
            ).commit("walt-session-1", "ann/x:latest", Asking("ann"))),
            [["commit"], SYNC, ["tag"], ["rm"], SYNC],
        )


class SlowDisk(Recorder):
    """A disk that takes its time: `syncs` are those under way and those that are over."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs: list[Deferred[None]] = []

    async def run(self, argv: Sequence[str], **options: Any) -> ProcessResult:  # type: ignore[override]
        """Wait for the test where the disk is waited for."""
        result = await super().run(argv, **options)
        if argv[0] == "sync":
            self.syncs.append(Deferred())
            await self.syncs[-1]
        return result


class WaitingTests(SynchronousTestCase):
    """Who waits for the disk keeps nobody else waiting, and is told what really happened."""

    def setUp(self) -> None:
        self.disk = SlowDisk()
        self.store = PodmanStore(
            self.disk, Storage(Path("/s/containers/storage"), Path("/r")), Path(self.mktemp())
        )

    def untag(self, name: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self.store.untag(name))

    def test_others_go_on(self) -> None:
        """The store is read, and other names are given, while the disk is waited for."""
        naming = Deferred.fromCoroutine(self.store.tag("a" * 64, "ann/x:latest"))
        building = Deferred.fromCoroutine(self.store.promote("localhost/t:1", "ann/y:latest"))
        self.assertNoResult(naming)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.store.scan())), [])
        self.disk.syncs[0].callback(None)
        self.successResultOf(naming)
        self.assertNoResult(building)

    def test_together(self) -> None:
        """Fifty names that go together: the disk is waited for twice, and for each of them."""
        going = [self.untag(f"ann/x{number}:latest") for number in range(50)]
        self.disk.syncs[0].callback(None)
        self.successResultOf(going[0])
        for one in going[1:]:
            self.assertNoResult(one)  # what they did may have come after the first
        self.disk.syncs[1].callback(None)
        for one in going[1:]:
            self.successResultOf(one)
        self.assertEqual(len(self.disk.syncs), 2)

    def test_who_leaves(self) -> None:
        """The others are waited for; the next who comes is, too."""
        first, second = self.untag("ann/x:latest"), self.untag("ann/y:latest")
        first.cancel()
        self.failureResultOf(first)
        self.disk.syncs[0].callback(None)
        self.disk.syncs[1].callback(None)
        self.successResultOf(second)
        third = self.untag("ann/z:latest")
        self.disk.syncs[2].callback(None)
        self.successResultOf(third)

    def test_failing_disk(self) -> None:
        """What is done is no error; what is not done yet is not done."""
        for error in (CommandFailed("sync failed"), Unavailable("sync did not end")):
            self.disk.syncs.clear()
            going = self.untag("ann/x:latest")
            self.disk.syncs[0].errback(error)
            self.successResultOf(going)
            self.disk.ran.clear()
            building = Deferred.fromCoroutine(
                self.store.promote("localhost/t:1", "ann/y:latest")
            )
            self.disk.syncs[1].errback(error)
            self.failureResultOf(building, type(error))
            self.assertEqual([argv[0] for argv in self.disk.ran], ["sync"])
