"""What a power failure leaves of a storage of podman: names of layers, names on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.server.domain.images.test_catalog import Asking
from tests.server.test_injection import Recorder
from walt.server.adapters.podman.containers import Engine, PodmanContainers
from walt.server.adapters.podman.lasting import mend_layers
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.podman.surroundings import Surroundings

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
