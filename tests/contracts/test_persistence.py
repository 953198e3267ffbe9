"""What an IPersistence does, on the fake and on real file systems in files."""

from __future__ import annotations

import os
import subprocess
from abc import abstractmethod
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.services import FakePersistence
from tests.patience import patient
from tests.system.netns import short_dir, why_not
from walt.common.mounts import is_mounted, mounted_below
from walt.server.adapters.volumes import images, loop, persistent
from walt.server.adapters.volumes.file_systems import Volumes
from walt.server.domain.network_services.interfaces import IPersistence
from walt.server.runtime.process import Launcher
from walt.server.runtime.workers import WorkerPool

MIB = 1 << 20


class PersistenceContract(Contract):
    """`make` returns an IPersistence for directories below `nodes`; `mounted` tells its mounts."""

    nodes: Path

    @abstractmethod
    def make(self) -> IPersistence:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    def mounted(self) -> set[Path]:
        """Given by each implementation; the class tells what."""

    def point(self, number: int, owner: str = "joe") -> Path:
        """Return the directory of a node's data."""
        return self.nodes / f"52:54:00:00:00:{number:02x}" / "persist_dirs" / owner

    async def test_mounted_and_unmounted(self) -> None:
        """Each directory has its own; what is not wanted any more is unmounted."""
        persistence = self.make()
        verifyObject(IPersistence, persistence)
        one, two, other = self.point(1), self.point(2), self.point(1, "ann")
        self.assertEqual(set(await persistence.made()), set())
        self.assertEqual(await persistence.ensure([one, two]), {})
        self.assertEqual(await persistence.ensure([one, two]), {})
        await persistence.keep_only([one, two])
        self.assertEqual(self.mounted(), {one, two})
        self.assertEqual(await persistence.ensure([two, other]), {})
        await persistence.keep_only([two, other])
        self.assertEqual(self.mounted(), {two, other})
        await persistence.keep_only(())
        self.assertEqual(self.mounted(), set())
        self.assertEqual(set(await persistence.made()), {one, two, other})


    async def test_given_up(self) -> None:
        """A server that stops makes nothing more, and says so; what there is can be unmounted."""
        persistence = self.make()
        one, two = self.point(1), self.point(2)
        self.assertEqual(await persistence.ensure([one]), {})
        await persistence.keep_only([one])
        persistence.give_up()
        self.assertEqual(await persistence.ensure([one, two]), {two: "the server stops"})
        self.assertEqual(self.mounted(), {one})
        await persistence.keep_only(())
        self.assertEqual(self.mounted(), set())


class FakePersistenceTests(PersistenceContract, TestCase):
    def make(self) -> Any:
        self.nodes = short_dir(self)
        self.fake = FakePersistence()
        return self.fake

    def mounted(self) -> set[Path]:
        return self.fake.mounted


class VolumesTests(PersistenceContract, TestCase):
    skip = why_not("mkfs.ext4", "mkfs.xfs", "mount", "losetup")
    timeout = patient(60)

    def make(self, size: int = 16 * MIB, storage: bool = True) -> Any:
        if not hasattr(self, "state"):
            self.state = short_dir(self)
            self.nodes = self.state / "nodes"
            self.addCleanup(self.unmount)
        workers = WorkerPool(reactor, Launcher(), size=1)
        self.addCleanup(workers.stop)
        return Volumes(
            reactor, workers, state=self.state, nodes=self.nodes, storage=storage,
            persist_size=size,
        )

    def unmount(self) -> None:
        """Leave nothing, whatever the test did."""
        for point in mounted_below(self.state):
            subprocess.run(["umount", "-l", str(point)], check=False)

    def mounted(self) -> set[Path]:
        return {one for one in mounted_below(self.state) if one.parent.name == "persist_dirs"}

    async def test_each_is_a_file_system(self) -> None:
        """It is limited, empty, runs nothing, and outlasts who mounted it."""
        volumes = self.make()
        one, two = self.point(1), self.point(2)
        self.assertEqual(await volumes.ensure([one, two]), {})
        self.assertEqual(len({os.stat(path).st_dev for path in (one, two, self.state)}), 3)
        self.assertEqual(list(one.iterdir()), [])
        self.assertEqual(one.parent.stat().st_mode & 0o777, 0o700)
        flags = os.statvfs(one).f_flag
        for flag in (os.ST_NOSUID, os.ST_NODEV, os.ST_NOEXEC):
            self.assertTrue(flags & flag)
        with self.assertRaisesRegex(OSError, "No space left"), (one / "much").open("wb") as file:
            for _ in range(32):
                file.write(bytes(MIB))
        (one / "much").unlink()
        (one / "kept").write_text("kept")
        await volumes.keep_only([two])
        self.assertFalse(is_mounted(one))
        self.assertEqual(list(one.iterdir()), [])
        again = self.make(size=64 * MIB)
        self.assertEqual(await again.ensure([one]), {})
        self.assertEqual((one / "kept").read_text(), "kept")
        space = os.statvfs(one)
        self.assertGreater(space.f_blocks * space.f_frsize, 40 * MIB)
        await again.keep_only(())
        self.assertEqual(self.mounted(), set())

    async def test_a_device_that_is_given_back_late(self) -> None:
        """The larger size is followed when the kernel has the device of the last mount still."""
        volumes = self.make()
        one = self.point(1)
        await volumes.ensure([one])
        await volumes.keep_only(())
        device = subprocess.run(
            ["losetup", "--find", "--show", "--", str(persistent.file_of(one))],
            check=True, capture_output=True, text=True,
        ).stdout
        growing = Deferred.fromCoroutine(self.make(size=64 * MIB).ensure([one]))
        await deferLater(reactor, 0.5)
        subprocess.run(["losetup", "--detach", device.strip()], check=True)
        self.assertEqual(await growing, {})
        space = os.statvfs(one)
        self.assertGreater(space.f_blocks * space.f_frsize, 40 * MIB)

    async def test_busy(self) -> None:
        """What somebody still uses stays, and is unmounted later."""
        volumes = self.make()
        one = self.point(1)
        await volumes.ensure([one])
        with (one / "open").open("w"):
            await volumes.keep_only(())
            self.assertTrue(is_mounted(one))
        await volumes.keep_only(())
        self.assertFalse(is_mounted(one))

    async def test_data_of_older_servers(self) -> None:
        """It moves, links, owners and modes included; a move that was interrupted begins again."""
        volumes = self.make()
        one = self.point(1)
        one.mkdir(parents=True)
        (one / "file").write_text("content")
        os.chown(one / "file", 1234, 1234)
        (one / "file").chmod(0o4750)
        os.link(one / "file", one / "same")
        (one / "link").symlink_to("file")
        half = persistent.file_of(one).with_suffix(".moving")
        half.parent.mkdir()
        half.write_bytes(b"half")
        self.assertEqual(set(await volumes.made()), {one})
        self.assertEqual(await volumes.ensure([one]), {})
        self.assertTrue(is_mounted(one))
        found = (one / "same").stat()
        self.assertEqual(
            (found.st_uid, found.st_mode & 0o7777, found.st_nlink), (1234, 0o4750, 2)
        )
        self.assertEqual(os.readlink(one / "link"), "file")
        await volumes.keep_only(())
        self.assertEqual(list(one.iterdir()), [])
        self.assertEqual({path.name for path in half.parent.glob("*.*")},
                         {"joe.ext4", "joe.point"})

    async def test_layouts_of_older_servers(self) -> None:
        """What lies beside the directories of owners is the present owner's, if he has no more."""
        volumes = self.make()
        one, two = self.point(1), self.point(2)
        await volumes.ensure([two])
        (two / "newer").write_text("newer")
        await volumes.keep_only(())
        for point, name in ((one, "persist"), (two, "persist_dir")):
            older = point.parent.parent / name
            older.mkdir(parents=True)
            (older / "older").write_text("older")
        self.assertEqual(set(await volumes.made()), {two, *(x.parent.parent for x in (one, two))})
        self.assertEqual(await volumes.ensure([one, two]), {})
        self.assertEqual([path.name for path in one.iterdir()], ["older"])
        self.assertFalse((one.parent.parent / "persist").exists())
        self.assertEqual([path.name for path in two.iterdir()], ["newer"])
        self.assertEqual((two.parent.parent / "persist_dir" / "older").read_text(), "older")

    async def test_what_cannot_be_mounted(self) -> None:
        """A file that is damaged concerns its node alone, and is kept."""
        volumes = self.make()
        one, two = self.point(1), self.point(2)
        persistent.file_of(one).parent.mkdir(parents=True)
        persistent.file_of(one).write_bytes(b"?" * 20 * MIB)
        failures = await volumes.ensure([one, two])
        self.assertEqual([*failures], [one])
        self.assertRegex(failures[one], "mount failed")
        self.assertEqual(persistent.file_of(one).stat().st_size, 20 * MIB)
        self.assertEqual(self.mounted(), {two})

    async def test_images(self) -> None:
        """Images of an older server move; what is mounted grows with what it holds."""
        volumes = self.make()
        storage, mounts = self.state / "containers" / "storage", self.state / "images"
        layer = storage / "overlay" / "ab" / "diff"
        layer.mkdir(parents=True)
        (layer / "file").write_text("content")
        os.setxattr(layer, "trusted.overlay.opaque", b"y")
        (mounts / "ab" / "changes").mkdir(parents=True)
        images.open_images(self.state, lambda text: None, storage=True, first=320 * MIB)
        await volumes.open()
        self.assertEqual((layer / "file").read_text(), "content")
        self.assertEqual(os.getxattr(layer, "trusted.overlay.opaque"), b"y")
        self.assertEqual(list(mounts.iterdir()), [])
        devices = {os.stat(path).st_dev for path in (storage, mounts, volumes.links)}
        self.assertEqual(len(devices), 1)
        self.assertNotIn(os.stat(self.state).st_dev, devices)
        self.assertEqual((self.state / "volumes").stat().st_mode & 0o777, 0o700)
        before = os.statvfs(mounts).f_blocks
        while os.statvfs(mounts).f_blocks == before:  # it has less free space than it should
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        self.assertGreater(os.statvfs(mounts).f_blocks, before)
        file = self.state / "volumes" / "images.xfs"
        self.assertGreaterEqual(file.stat().st_blocks * 512, file.stat().st_size)
        await volumes.close()
        self.assertEqual(mounted_below(self.state), [])
        self.assertEqual(list((self.state / "containers").iterdir()), [])
        # What somebody writes there meanwhile is not lost.
        (self.state / "containers" / "mine").write_text("mine")
        again = self.make()
        await again.open()
        self.assertEqual((layer / "file").read_text(), "content")
        self.assertEqual((self.state / "containers.found-1" / "mine").read_text(), "mine")
        await again.close()

    async def test_images_in_use(self) -> None:
        """Who still uses an image at the end keeps nothing mounted, and loses nothing."""
        images.open_images(self.state_with_storage().parent, lambda text: None, storage=True)
        volumes = self.make()
        await volumes.open()
        with (self.state / "images" / "used").open("w") as used:
            await volumes.close()
            self.assertEqual(mounted_below(self.state), [])
            again = self.make()
            await again.open()
            used.write("kept")
        self.assertEqual((self.state / "images" / "used").read_text(), "kept")
        await again.close()

    async def test_interrupted_moves(self) -> None:
        """A server that was killed at any moment of a move loses nothing."""
        place = self.state_with_storage()
        images.open_images(self.state, lambda text: None, storage=True, first=320 * MIB)
        target = images.top(self.state) / "containers"
        # Killed while it copied.
        loop.unmount(place)
        os.rename(target, target.with_name(".containers.new"))
        (target.with_name(".containers.new") / "storage" / "file").unlink()
        (place / "storage").mkdir()
        (place / "storage" / "file").write_text("content")
        images.open_images(self.state, lambda text: None, storage=True, first=320 * MIB)
        self.assertEqual((place / "storage" / "file").read_text(), "content")
        # Killed when the old one was put aside.
        loop.unmount(place)
        os.rename(target, target.with_name(".containers.new"))
        os.rename(place, self.state / ".containers.moved")
        images.open_images(self.state, lambda text: None, storage=True, first=320 * MIB)
        self.assertEqual((place / "storage" / "file").read_text(), "content")
        self.assertFalse((self.state / ".containers.moved").exists())
        images.close_images(self.state)

    def state_with_storage(self) -> Path:
        """Make the storage of an older server; return its place."""
        self.make()
        place = self.state / "containers"
        (place / "storage").mkdir(parents=True)
        (place / "storage" / "file").write_text("content")
        return place

    async def test_no_room(self) -> None:
        """Images that find no room to move stay where they are, and the reason says what to do."""
        place = self.state_with_storage()
        self.patch(images, "_room", lambda state: 0)
        with self.assertRaisesRegex(Exception, "free some space, or mount a partition at"):
            images.open_images(self.state, lambda text: None, storage=True)
        self.assertEqual((place / "storage" / "file").read_text(), "content")
        self.assertEqual(mounted_below(self.state), [])
