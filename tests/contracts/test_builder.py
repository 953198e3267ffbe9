"""The port IImageBuilder, on the fake and on real git, podman and buildah."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.images import FakeBuilder, FakeStore
from tests.patience import patient
from tests.server.domain.images.test_catalog import Asking
from tests.system.processes import commands
from tests.system.storage import TestStorage, archive, engine, why_not, with_busybox
from walt.common.errors import CommandFailed, Invalid, NotFound
from walt.server.adapters.podman.builder import PodmanBuilder, control_groups
from walt.server.adapters.podman.repositories import Repositories
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.podman.surroundings import Surroundings
from walt.server.adapters.ssh.options import git_command
from walt.server.domain.images.interfaces import IImageBuilder, IImageStore
from walt.server.domain.images.model import StoredImage
from walt.server.runtime.process import Launcher, ProcessRunner
from walt.server.runtime.workers import WorkerPool

BASE = "ann/base:latest"


class Told(Asking):
    """A requester that keeps what it is told of the progress."""

    def progress(self, text: str) -> None:
        self.lines.append(text)


class BuilderContract(Contract):
    """`make` returns a builder and the store it fills, which holds the image BASE."""

    @abstractmethod
    async def make(self) -> tuple[IImageBuilder, IImageStore]:
        """Given by each implementation; the class tells what."""

    async def run_program(self, argv: list[str]) -> None:
        """Run what the builder says."""
        from twisted.internet import reactor

        await ProcessRunner(reactor).run(argv, timeout=60)

    async def unpacked(self, builder: IImageBuilder, files: dict[str, bytes]) -> Path:
        """Open a build of these files."""
        place: Path = builder.open()
        sent = place / "archive"
        sent.write_bytes(archive(files))
        await builder.unpack(place, sent)
        return place

    async def test_build(self) -> None:
        """A recipe of a sub-directory becomes an image of the caller's base; nothing is left."""
        builder, store = await self.make()
        verifyObject(IImageBuilder, builder)
        place = await self.unpacked(builder, {
            "deep/": b"", "deep/ContainerFile": b"FROM base\nCOPY f /f\n", "deep/f": b"x",
        })
        reference = store.temporary()
        await self.run_program(await builder.command(place, "/deep/", "ann", reference, [BASE]))
        image = await store.examine(reference, "ann/new:latest")
        base = await store.read(BASE)
        self.assertEqual(image.models, base.models)
        self.assertEqual(len(image.layers), len(base.layers) + 1)
        await builder.close(place)
        self.assertFalse(place.exists())
        await store.discard(reference)
        self.assertEqual([one.fullname for one in await store.scan()], [BASE])

    async def test_refusals(self) -> None:
        """Archives that lead outside, directories and recipes that are not there, bad addresses."""
        builder, _ = await self.make()
        with self.assertRaises(Invalid):
            await self.unpacked(builder, {"../out": b"x"})
        place = await self.unpacked(builder, {
            "empty/": b"", "Dockerfile": b"# nothing\n",
            "mounts/": b"", "mounts/Dockerfile": b"FROM base\nRUN --mount=from=base,rw true\n",
            "other/": b"", "other/Dockerfile": b"FROM debian:12\n",
        })
        for subdir, error in (
            ("empty", NotFound), ("none", NotFound), ("../..", Invalid), ("", Invalid),
            ("mounts", Invalid), ("other", NotFound),
        ):
            with self.assertRaises(error):
                await builder.command(place, subdir, "ann", "localhost/walt/temporary:x", [BASE])
        for url in ("ext::sh -c true", "--upload-pack=x", "/etc", "file:///etc", ""):
            with self.assertRaises(Invalid):
                await builder.fetch_command(place, url, progress=False)
        for progress in (True, False):
            command = await builder.fetch_command(place, "https://192.0.2.1/x", progress=progress)
            self.assertIn("https://192.0.2.1/x", command)
            self.assertEqual("--progress" in command, progress)
        await builder.close(place)
        left: Path = builder.open()
        await builder.sweep()
        self.assertFalse(left.exists())

    async def test_submodules(self) -> None:
        """Whoever builds is told that they are not there."""
        builder, _ = await self.make()
        for files, told in (
            ({"Dockerfile": b"FROM base\n"}, False),
            ({"Dockerfile": b"FROM base\n", ".gitmodules": b""}, True),
        ):
            place = await self.unpacked(builder, files)
            self.assertEqual("submodules" in (builder.left_out(place) or ""), told)
            await builder.close(place)

    async def test_squash(self) -> None:
        """One layer, the same labels; the requester is told; an absent image is an error."""
        builder, store = await self.make()
        base = await store.read(BASE)
        reference, told = store.temporary(), Told()
        await builder.squash(base, reference, told)
        image = await store.examine(reference, BASE)
        self.assertEqual((len(image.layers), image.models), (1, base.models))
        self.assertTrue(told.lines)
        with self.assertRaises(CommandFailed):
            await builder.squash(StoredImage("ann/none:latest", "9" * 64), "x", told)


class FakeBuilderTests(BuilderContract, TestCase):
    async def make(self) -> tuple[FakeBuilder, FakeStore]:
        store = FakeStore(StoredImage(
            BASE, "a" * 64, labels={"walt.node.models": "pc-x86-64"}, layers=("l/A", "l/B")
        ))
        return FakeBuilder(store, Path(self.mktemp())), store


class PodmanBuilderTests(BuilderContract, TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_killed(self) -> None:
        """Of a build that is killed, neither processes, containers nor control groups stay."""
        from twisted.internet import reactor

        builder, store = await self.make()
        place = await self.unpacked(builder, {
            "Dockerfile": b"FROM base\nRUN echo here; busybox sleep 100000\n",
        })
        running = ProcessRunner(reactor)
        ended: Deferred[Any]

        def line(text: str) -> None:
            if text == "here":
                started.callback(None)

        started: Deferred[None] = Deferred()
        ended = Deferred.fromCoroutine(running.run(
            await builder.command(place, "", "ann", store.temporary(), [BASE]), timeout=100,
            on_line=line,
        ))
        await started
        (bundle,) = (place / "tmp").glob("buildah*")
        groups = [one for one in control_groups(place) if one.exists()]
        ended.cancel()
        await ended.addErrback(lambda _: None)
        await builder.close(place)
        self.assertEqual([one for one in groups if one.exists()], [])
        self.assertEqual([one.fullname for one in await store.scan()], [BASE])
        self.assertEqual([one for one in commands() if bundle.name in one], [])

    async def make(self) -> tuple[PodmanBuilder, PodmanStore]:
        from twisted.internet import reactor

        place = TestStorage(reactor)
        self.addCleanup(place.close)
        await place.make_image(BASE, with_busybox())
        workers = WorkerPool(reactor, Launcher(), network="host")
        self.addCleanup(workers.stop)
        builder = PodmanBuilder(
            place.runner, workers, place.storage, engine(), Surroundings(), place.base / "builds",
            Repositories(place.runner, partial(git_command, None)),
        )
        return builder, PodmanStore(place.runner, place.storage, place.base / "cache.json")
