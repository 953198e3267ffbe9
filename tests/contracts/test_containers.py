"""The port IContainers, on the fake and on real podman."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from pathlib import Path

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.images import FakeContainers, FakeImageUsers, FakeStore
from tests.patience import patient
from tests.server.workers.test_unpack_tree import archive, directory, link, member
from tests.system.storage import TestStorage, engine, why_not, with_busybox
from walt.common.errors import CommandFailed
from walt.server.adapters.podman.containers import PodmanContainers, choose_engine
from walt.server.adapters.podman.outside import RESOLVER
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.podman.surroundings import Surroundings
from walt.server.domain.images.interfaces import IContainers, IImageStore, IImageUsers
from walt.server.domain.images.model import ContainerOptions, StoredImage
from walt.server.domain.requester import NobodyWaits

NAME = "ann/image:latest"
OTHER = "ann/other:latest"


class ContainersContract(Contract):
    """`make` returns containers and the store they share, with the image NAME."""

    @abstractmethod
    async def make(self) -> tuple[IContainers, IImageStore]:
        """Given by each implementation; the class tells what."""

    async def test_changes_are_committed(self) -> None:
        """A commit replaces or makes a name; the container can be removed twice."""
        containers, store = await self.make()
        verifyObject(IContainers, containers)
        old = await store.read(NAME)
        one = await containers.start(old, ContainerOptions())
        self.assertEqual(await containers.volatile(one), [])
        self.assertEqual(await containers.run(one, "echo new > /root/file; echo done"), b"done\n")
        await containers.freeze(one)
        await containers.commit(one, NAME, NobodyWaits())
        await containers.commit(one, OTHER, NobodyWaits())
        await containers.remove(one)
        await containers.remove(one)
        new = await store.read(NAME)
        self.assertNotEqual(new.image_id, old.image_id)
        self.assertEqual(new.models, old.models)
        self.assertEqual(len(new.layers), len(old.layers) + 1)
        two = await containers.start(new, ContainerOptions())
        self.assertEqual(await containers.run(two, "cat /root/file"), b"new\n")
        await containers.remove(two)
        self.assertEqual({image.fullname for image in await store.scan()}, {NAME, OTHER})

    async def test_failures(self) -> None:
        """Scripts that fail, containers that do not exist."""
        containers, store = await self.make()
        one = await containers.start(await store.read(NAME), ContainerOptions())
        for container, script in ((one, "exit 3"), ("walt-session-00000000", "true")):
            with self.assertRaises(CommandFailed):
                await containers.run(container, script)
        with self.assertRaises(CommandFailed):
            await containers.commit("walt-session-00000000", OTHER, NobodyWaits())
        await containers.sweep()
        with self.assertRaises(CommandFailed):
            await containers.run(one, "true")
        self.assertEqual({image.fullname for image in await store.scan()}, {NAME})


class FakeContainersTests(ContainersContract, TestCase):
    async def make(self) -> tuple[FakeContainers, FakeStore]:
        store = FakeStore(StoredImage(
            NAME, "a" * 64, labels={"walt.node.models": "pc-x86-64"}, layers=("l/A",)
        ))
        return FakeContainers(store), store

    def test_fakes_provide_their_ports(self) -> None:
        """The fake of the nodes too."""
        self.assertTrue(verifyObject(IImageUsers, FakeImageUsers()))


class PodmanContainersTests(ContainersContract, TestCase):
    skip = why_not()
    timeout = patient(120)

    async def make(self) -> tuple[PodmanContainers, PodmanStore]:
        from twisted.internet import reactor

        self.place = TestStorage(reactor)
        self.addCleanup(self.place.close)
        await self.place.make_image(NAME, with_busybox())
        place = self.place
        containers = PodmanContainers(
            place.runner, place.storage, engine(), place.base / "scratch", place.base / "layers",
            Surroundings(),
        )
        return containers, PodmanStore(place.runner, place.storage, place.base / "cache.json")

    async def test_network(self) -> None:
        """None, or one of its own, which ends with the container and leads outside alone."""
        containers, store = await self.make()
        image = await store.read(NAME)
        closed = await containers.start(image, ContainerOptions())
        opened = await containers.start(image, ContainerOptions(outside=True))
        links = {
            name: (await containers.run(name, "ls /sys/class/net; cat /proc/net/route")).decode()
            for name in (closed, opened)
        }
        self.assertEqual(links[closed].split("\n")[0], "lo")
        self.assertNotIn("tap0", links[closed])
        self.assertIn("tap0\t00000000\t", links[opened])  # the default route
        names = await containers.run(opened, "cat /etc/resolv.conf")
        self.assertIn(f"nameserver {RESOLVER}".encode(), names)
        ((network,),) = (containers._networks.values(),)
        self.assertTrue(Path(f"/proc/{network.pid}").exists())
        for name in (closed, opened):
            await containers.remove(name)
        self.assertTrue(network.over.called)
        self.assertFalse(Path(f"/proc/{network.pid}").exists())

    async def test_nothing_is_left(self) -> None:
        """Neither containers nor tags nor dangling images, after removal or after a kill."""
        containers, store = await self.make()
        name = await containers.start(await store.read(NAME), ContainerOptions())
        await containers.commit(name, NAME, NobodyWaits())
        await containers.remove(name)
        self.assertEqual(await self.place.references(), {f"docker.io/{NAME}"})
        await containers.start(await store.read(NAME), ContainerOptions())
        await self.place.podman("tag", NAME, "localhost/walt/sessions:walt-session-0badcafe")
        another = PodmanContainers(
            self.place.runner, self.place.storage, engine(), self.place.base / "scratch",
            self.place.base / "layers", Surroundings(),
        )
        await another.sweep()
        self.assertEqual(await self.place.podman("ps", "--all", "--quiet"), "")
        self.assertEqual(await self.place.references(), {f"docker.io/{NAME}"})

    async def test_configuration_and_cpuinfo(self) -> None:
        """The image keeps its own start command; /proc/cpuinfo can be replaced."""
        containers, store = await self.make()
        tree = self.place.base / "tree.tar"
        await self.place.podman(
            "import", "--quiet", "--change", "LABEL walt.node.models=pc-x86-64",
            "--change", 'CMD ["/bin/it", "is \'me\'"]', "--change", "ENV FOO=some *value*",
            str(tree), f"docker.io/{OTHER}",
        )
        one = await containers.start(
            await store.read(OTHER), ContainerOptions(cpuinfo=b"model: odd\n")
        )
        self.assertEqual(await containers.run(one, "cat /proc/cpuinfo"), b"model: odd\n")
        self.assertEqual(await containers.run(one, "hostname"), b"image-shell\n")
        environment = (await containers.run(one, "env")).decode().splitlines()
        for variable in ("FOO=some *value*", "HOME=/root", "container=podman"):
            self.assertIn(variable, environment)
        await containers.commit(one, OTHER, NobodyWaits())
        await containers.remove(one)
        config = await self.place.podman(
            "image", "inspect", "--format", "{{json .Config.Cmd}}", OTHER
        )
        self.assertEqual(config.strip(), '["/bin/it","is \'me\'"]')
        environ = await self.place.podman(
            "image", "inspect", "--format", "{{json .Config.Env}}", OTHER
        )
        self.assertEqual(environ.strip(), '["FOO=some *value*"]')
        self.assertEqual(list((self.place.base / "scratch").iterdir()), [])


    async def test_all_of_it_is_saved(self) -> None:
        """What lies below a volume, too, and the files that container engines replace."""
        containers, store = await self.make()
        await self.place.podman(
            "import", "--quiet", "--change", "LABEL walt.node.models=pc-x86-64",
            "--change", "VOLUME /data", "--change", "VOLUME /var/lib/things",
            "--change", "USER 1000:1000", str(self.place.base / "tree.tar"), f"docker.io/{OTHER}",
        )
        files = ("/data/a", "/var/lib/things/b", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname")
        one = await containers.start(await store.read(OTHER), ContainerOptions())
        self.assertEqual(await containers.run(one, "id -u; id -g"), b"0\n0\n")
        for file in files:
            await containers.run(one, f"mkdir -p {Path(file).parent}; echo ours > {file}")
        await containers.commit(one, OTHER, NobodyWaits())
        await containers.remove(one)
        two = await containers.start(await store.read(OTHER), ContainerOptions(outside=True))
        for file in files:
            expected = f"nameserver {RESOLVER}\n" if file == "/etc/resolv.conf" else "ours\n"
            self.assertEqual((await containers.run(two, f"cat {file}")).decode(), expected)
        self.assertEqual(await containers.run(two, "id -u"), b"0\n")
        told = await containers.run(two, "{ echo x >> /etc/resolv.conf; } 2>&1 || true")
        self.assertIn(b"/etc/resolv.conf: Read-only", told)
        await containers.commit(two, OTHER, NobodyWaits())
        await containers.remove(two)
        shown = await self.place.podman("image", "inspect", "--format", "{{json .Config}}", OTHER)
        config = json.loads(shown)
        self.assertEqual(config["User"], "1000:1000")
        self.assertEqual(set(config["Volumes"]), {"/data", "/var/lib/things"})
        three = await containers.start(await store.read(OTHER), ContainerOptions())
        self.assertEqual(await containers.run(three, "cat /etc/resolv.conf"), b"ours\n")
        await containers.remove(three)

    async def test_what_changed_on_a_node(self) -> None:
        """It replaces what is there whatever its type, and is committed; memory is left out."""
        containers, store = await self.make()
        one = await containers.start(await store.read(NAME), ContainerOptions())
        await containers.run(one, "mkdir -p /etc/d/deep; ln -s d /etc/l; echo old > /etc/f")
        data = self.place.base / "node.tar"
        data.write_bytes(archive(
            link("./etc/d", "f"), directory("./etc/l", mode=0o1777), directory("./etc/f"),
            member("./etc/f/x", b"new", mode=0o4755, uid=7), member("./run/x", b"x"),
        ))
        with open(data, "rb") as file:
            self.assertEqual(await containers.unpack(one, file.fileno()), ["/run/x"])
        await containers.commit(one, OTHER, NobodyWaits())
        await containers.remove(one)
        two = await containers.start(await store.read(OTHER), ContainerOptions())
        told = await containers.run(
            two, "readlink /etc/d; stat -c '%F %a %u' /etc/l /etc/f/x; cat /etc/f/x"
        )
        self.assertEqual(
            told, b"f\ndirectory 1777 0\nregular file 4755 7\nnew"
        )
        data.write_bytes(b"no archive" * 100)
        with open(data, "rb") as file, self.assertRaises(CommandFailed):
            await containers.unpack(two, file.fileno())
        # The number of its process may be that of another one, in the tree of the server.
        (pid,) = (self.place.base / "scratch").glob(f"{two}.pid")
        pid.write_text(str(os.getpid()))
        with open(data, "rb") as file, self.assertRaises(CommandFailed) as ended:
            await containers.unpack(two, file.fileno())
        self.assertIn("has ended", str(ended.exception))
        await containers.remove(two)

    async def test_files_in_memory(self) -> None:
        """Those that a commit leaves out are known by name."""
        containers, store = await self.make()
        for outside in (False, True):
            one = await containers.start(
                await store.read(NAME), ContainerOptions(outside=outside)
            )
            self.assertEqual(await containers.volatile(one), [])
            await containers.run(one, "mkdir -p /run/a /dev/shm; touch '/run/a/b c' /dev/shm/x")
            self.assertEqual(
                sorted(await containers.volatile(one)), ["/dev/shm/x", "/run/a/b c"]
            )
            await containers.remove(one)


class EngineTests(TestCase):
    def test_choice(self) -> None:
        """Settings win; runc where control groups are not unified."""
        for runtime, cgroup2, has_runc, expected in (
            (None, True, True, None), (None, False, True, "runc"), (None, False, False, None),
            ("kata", False, True, "kata"),
        ):
            made = choose_engine(runtime, ["core=0:0"], cgroup2=cgroup2, has_runc=has_runc)
            self.assertEqual((made.runtime, made.ulimits), (expected, ("core=0:0",)))
        automatic = choose_engine(None, (), cgroup2=True, has_runc=False)
        self.assertTrue(automatic.limit_options()[1].startswith("nofile="))
