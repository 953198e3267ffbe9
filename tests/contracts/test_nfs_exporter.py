"""What an INfsExporter does, on the fake and on a real ganesha that has a bad day."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutput
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.images import FakeExporter
from tests.patience import patient
from tests.system.netns import Namespace, join, short_dir, why_not
from tests.system.processes import pipes_closed
from walt.common.errors import CommandFailed
from walt.server.adapters.nbfs.exporter import NbfsExporter
from walt.server.adapters.nfs.exports import EXPORTS, LINKS_ID, NODES
from walt.server.adapters.nfs.ganesha import STOPPED, GaneshaExporter
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.domain.images.interfaces import INfsExporter
from walt.server.runtime.process import ProcessRunner
from walt.server.runtime.reactors import the_reactor

NET = IPv4Network("192.168.1.0/24")


class ExporterContract(Contract):
    """`make` returns a running INfsExporter, `trees` what is exported: (address, path, rw)."""

    @abstractmethod
    def make(self) -> INfsExporter:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    async def trees(self) -> set[tuple[str, Path, bool]]:
        """Given by each implementation; the class tells what."""

    def place(self) -> None:
        """Make directories that stand for mounted images."""
        self.base = short_dir(self)
        self.images = [ImageExport(digit * 64, self.base / f"image-{digit}") for digit in "abcd"]
        for image in self.images:
            image.path.mkdir()

    def plan(self, choices: Sequence[int | None], persist: bool = True) -> ExportPlan:
        """Return the plan of nodes 10, 11… each with the image of that number, or none."""
        nodes = tuple(
            NodeExport(
                f"52:54:00:00:00:{number:02x}", f"192.168.1.{number}", f"n{number}",
                None if choice is None else self.images[choice].image_id,
                self.base / "nodes" / str(number) / "joe" if persist else None,
            )
            for number, choice in enumerate(choices, 10)
        )
        images = tuple(
            replace(image, readers=tuple(
                node.ip for node in nodes if node.image_id == image.image_id
            ))
            for image in self.images
        )
        return ExportPlan(NET, images, nodes)

    def wanted(self, plan: ExportPlan) -> set[tuple[str, Path, bool]]:
        """Return what `trees` must return for a plan."""
        found = {(ip, image.path, False) for image in plan.images for ip in image.readers}
        return found | {
            (node.ip, node.persist, True) for node in plan.nodes if node.persist is not None
        }

    async def test_plans(self) -> None:
        """Whatever the plans say, in any order, that is what is exported."""
        exporter = self.make()
        verifyObject(INfsExporter, exporter)
        choice = random.Random(11)
        for _ in range(25):
            plan = self.plan(
                [choice.choice([None, 0, 1, 2, 3]) for _ in range(choice.randint(0, 12))],
                persist=choice.random() < 0.8,
            )
            self.assertEqual(await exporter.apply(plan), {})
            self.assertEqual(await exporter.apply(plan), {})
            self.assertEqual(await self.trees(), self.wanted(plan))
            for node in plan.nodes:
                self.assertTrue(node.persist is None or node.persist.is_dir())
        await exporter.withdraw()


class NbfsExporterTests(ExporterContract, TestCase):
    """It exports by another exporter, and has a directory without a daemon."""

    def make(self) -> Any:
        self.place()
        self.exporter = FakeExporter()
        exports = self.base / "exports.d"
        exports.mkdir()
        return NbfsExporter(
            the_reactor(), self.exporter, enabled=True, directory=exports,
            control=self.base / "ctl.sock", own=self.base / "own", owner=self.base,
        )

    async def trees(self) -> set[tuple[str, Path, bool]]:
        return self.wanted(self.exporter.plans[-1])


class FakeExporterTests(ExporterContract, TestCase):
    def make(self) -> Any:
        self.place()
        self.exporter = FakeExporter()
        return self.exporter

    async def trees(self) -> set[tuple[str, Path, bool]]:
        return self.wanted(self.exporter.plans[-1])


class GaneshaTests(ExporterContract, TestCase):
    skip = why_not("ganesha.nfsd", "mount", "nfs-ls")
    timeout = patient(120)

    def make(self) -> Any:
        self.place()
        self.addCleanup(pipes_closed, reactor)
        self.namespace = Namespace(self)
        for words in ("link add net type bridge", "addr add 192.168.1.1/24 dev net",
                      "link set net up"):
            self.namespace.run("ip", *words.split())
        return self.another()

    def another(self) -> GaneshaExporter:
        """Return a running exporter in the same place."""
        launcher = self.namespace.launcher
        exporter = self.exporter = GaneshaExporter(
            reactor, launcher, ProcessRunner(reactor, launcher), directory=self.base / "state",
            runtime=self.base / "run", links=self.base / "links", trees=[self.base],
            address="192.168.1.1", subnet=NET,
        )
        exporter.startService()
        self.addCleanup(exporter.stopService)
        return exporter

    async def test_below_tmp(self) -> None:
        """Its view has a /tmp of its own, below which directories of the server may be."""
        self.make()
        await self.exporter.stopService()
        place = Path(tempfile.mkdtemp(prefix="wt"))
        self.addCleanup(shutil.rmtree, place, True)
        launcher = self.namespace.launcher
        exporter = self.exporter = GaneshaExporter(
            reactor, launcher, ProcessRunner(reactor, launcher), directory=self.base / "state",
            runtime=place / "run", links=self.base / "links", trees=[self.base],
            address="192.168.1.1", subnet=NET,
        )
        exporter.startService()
        self.addCleanup(exporter.stopService)
        await exporter.apply(self.plan([0, 3]))
        self.assertEqual((exporter.health.restarts, len(await self.trees())), (0, 4))

    async def numbers(self) -> set[int]:
        """Return the numbers that ganesha itself tells."""
        shown = (await self.exporter.orders.give("ShowExports"))[1]
        return {export[0] for export in shown} - {0}

    async def trees(self) -> set[tuple[str, Path, bool]]:
        numbers = await self.numbers()
        self.assertIn(LINKS_ID, numbers)
        found = list[tuple[str, Path, bool]]()
        for number in numbers - {LINKS_ID}:
            # Written when the export was given; ganesha answers with the path alone.
            record = (self.base / "state" / "exports" / f"{number}.conf").read_text()
            mode, _, path = record.splitlines()[0][2:].split(" ", 2)
            (clients,) = re.findall(r"Clients = ([^;]+);", record)
            found += [
                (str(ip), Path(path), mode == "rw")
                for network in clients.split(", ") for ip in IPv4Network(network)
            ]
        self.assertEqual(len(set(found)), len(found))
        return set(found)

    def reached(self, path: str) -> Path | None:
        """Return the tree behind a path below the directory of nodes."""
        link = self.base / "links" / path
        if not link.is_symlink():
            return None
        number = os.readlink(link).rpartition("/")[2]
        self.assertEqual(os.readlink(link), f"../../{Path(EXPORTS).name}/{number}")
        record = (self.base / "state" / "exports" / f"{number}.conf").read_text()
        return Path(record.splitlines()[0].split(" ", 3)[3])

    async def until(self, condition: Any) -> None:
        """Wait until an async condition holds."""
        while not await condition():
            await deferLater(reactor, 0.1, lambda: None)

    async def test_links(self) -> None:
        """A node reaches its image by address, MAC and name; another image, another tree."""
        exporter = self.make()
        for choice in (0, 1, None, 2):
            await exporter.apply(self.plan([choice, 3]))
            image = None if choice is None else self.images[choice].path
            for name in ("192.168.1.10", "52:54:00:00:00:0a", "n10"):
                self.assertEqual(self.reached(f"{name}/fs"), image)
                self.assertEqual(
                    self.reached(f"{name}/persist"), self.base / "nodes" / "10" / "joe"
                )
            self.assertEqual(self.reached("n11/fs"), self.images[3].path)
        await exporter.apply(self.plan([]))
        self.assertEqual(list((self.base / "links").iterdir()), [])

    async def test_what_nodes_find(self) -> None:
        """However often its image changes, a node finds the present one, at once."""
        exporter = self.make()
        for image in self.images:
            for number in range(700):  # more than one answer holds
                (image.path / f"file-{number}-of-{image.path.name}").touch()
        node = Namespace(self)
        join(self.namespace, "to-node", node, "net")
        self.namespace.run("ip", "link", "set", "to-node", "master", "net")
        node.run("ip", "addr", "add", "192.168.1.10/24", "dev", "net")
        choice = random.Random(13)
        last = 0
        for _ in range(25):
            last = choice.choice([number for number in range(4) if number != last])
            await exporter.apply(self.plan([last, choice.choice([None, 0, 1])]))
            for name in choice.choice((["192.168.1.10"], ["52:54:00:00:00:0a", "n10"])):
                found = (await getProcessOutput("nsenter", node.command(
                    "nfs-ls", f"nfs://192.168.1.1{NODES}/{name}/fs?version=4"
                )[1:], errortoo=True)).decode()
                lines = [line for line in found.splitlines()
                         if line.endswith(f"-of-{self.images[last].path.name}")]
                self.assertEqual(len(set(lines)), 700, found[:1000])

    async def test_who_may_read(self) -> None:
        """Nodes that boot an image share its export: each finds it from its first to its last."""
        exporter = self.make()
        for image in self.images:
            (image.path / f"of-{image.path.name}").touch()
        nodes = dict[str, Namespace]()
        for number in range(10, 13):
            nodes[f"192.168.1.{number}"] = node = Namespace(self)
            join(self.namespace, f"to-{number}", node, "net")
            self.namespace.run("ip", "link", "set", f"to-{number}", "master", "net")
            node.run("ip", "addr", "add", f"192.168.1.{number}/24", "dev", "net")
        numbers = list[set[int]]()
        for choices in ([0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0], [None, 1, 0]):
            plan = self.plan(choices, persist=False)
            self.assertEqual(await exporter.apply(plan), {})
            numbers.append(await self.numbers())
            by_path = {
                path: next(
                    number for number in numbers[-1]
                    if (record := self.base / f"state/exports/{number}.conf").exists()
                    and f" {path}\n" in record.read_text()
                )
                for path in {path for _, path, _ in self.wanted(plan)}
            }
            for path, number in by_path.items():
                for ip, node in nodes.items():
                    found = (await getProcessOutput("nsenter", node.command(
                        "nfs-ls", f"nfs://192.168.1.1{EXPORTS}/{number}?version=4"
                    )[1:], errortoo=True)).decode()
                    expected = (ip, path, False) in self.wanted(plan)
                    self.assertEqual(f"of-{path.name}" in found, expected, (choices, ip, found))
        # An export keeps the number that handles carry as long as somebody reads it.
        self.assertEqual(numbers[0], numbers[1])
        self.assertLess(numbers[2], numbers[1])
        self.assertEqual(numbers[3], numbers[1])

    async def test_it_hangs(self) -> None:
        """A ganesha that does not answer is started again, and then has what is wanted."""
        exporter = self.make()
        await exporter.apply(self.plan([0, 1]))
        os.kill(exporter.child.pid, signal.SIGSTOP)
        plan = self.plan([1, 1, 2])
        self.assertEqual(await exporter.apply(plan), {})
        self.assertEqual(await self.trees(), self.wanted(plan))
        self.assertEqual(exporter.child.health.restarts, 1)

    async def test_mounts_made_private(self) -> None:
        """When another program cuts its view off, it gets a new one, which goes on."""
        exporter = self.make()
        await self.mount("--bind", str(self.base), at=self.base)
        await exporter.apply(self.plan([0], persist=False))
        await ProcessRunner(reactor).run(["mount", "--make-rprivate", str(self.base)])
        for number, choices in enumerate(([0, 2], [0, 2, 3])):
            image = self.images[choices[-1]].path
            # As images are mounted: ganesha 6 ignores a tmpfs.
            parts = {name: self.base / f"{name}-{number}" for name in ("lower", "upper", "work")}
            for part in parts.values():
                part.mkdir()
            (parts["lower"] / "content").touch()
            options = [f"{name}dir={part}" for name, part in parts.items()]
            await self.mount(
                "-t", "overlay", "-o", ",".join([*options, "index=on,nfs_export=on"]), "none",
                at=image,
            )
            plan = self.plan(choices, persist=False)
            self.assertEqual(await exporter.apply(plan), {})
            self.assertEqual(await self.trees(), self.wanted(plan))
            self.assertEqual(
                os.listdir(f"/proc/{exporter.child.pid}/root{image}"), ["content"], number
            )
            self.assertEqual(exporter.child.health.restarts, 1)

    async def mount(self, *words: str, at: Path) -> None:
        """Mount something until the end of the test."""
        runner = ProcessRunner(reactor)
        await runner.run(["mount", *words, str(at)])
        self.addCleanup(runner.run, ["umount", "--lazy", str(at)])

    async def test_it_dies(self) -> None:
        """One that ended comes back with its exports and numbers, nobody having asked."""
        exporter = self.make()
        plan = self.plan([0, 1, 2])
        await exporter.apply(plan)
        before = await self.numbers()
        pid = exporter.child.pid
        os.kill(pid, signal.SIGKILL)

        async def back() -> bool:
            return exporter.child.pid not in (None, pid) and exporter._in_force()

        await self.until(back)
        self.assertEqual(await self.numbers(), before)
        self.assertEqual(await self.trees(), self.wanted(plan))

    async def test_it_dies_while_told(self) -> None:
        """Orders of that moment are given again."""
        exporter = self.make()
        await exporter.apply(self.plan([0]))
        os.kill(exporter.child.pid, signal.SIGKILL)
        plan = self.plan([1, 2, 3])
        self.assertEqual(await exporter.apply(plan), {})
        self.assertEqual(await self.trees(), self.wanted(plan))

    async def test_what_it_cannot_export(self) -> None:
        """It concerns one node; that node alone is told, and the next try may succeed."""
        exporter = self.make()
        plan = self.plan([0, 1, 1])
        await exporter.apply(self.plan([2, 1]))
        shutil.rmtree(self.images[0].path)
        failures = await exporter.apply(plan)
        self.assertEqual(list(failures), [plan.nodes[0].mac])
        self.assertNotIn("Details:", failures[plan.nodes[0].mac])
        self.assertIsNone(self.reached("n10/fs"))
        for name in ("n11", "n12"):
            self.assertEqual(self.reached(f"{name}/fs"), self.images[1].path)
        self.flushLoggedErrors()
        self.images[0].path.mkdir()
        self.assertEqual(await exporter.apply(plan), {})
        self.assertEqual(await self.trees(), self.wanted(plan))

    async def test_what_it_does_not_remove(self) -> None:
        """An export that it would not remove is removed the next time."""
        exporter = self.make()
        await exporter.apply(self.plan([0, 1], persist=False))
        plan = self.plan([1, 1], persist=False)
        refuses = self.patch(
            exporter.orders, "remove", lambda number: fail(CommandFailed("not now"))
        )
        self.assertEqual(await exporter.apply(plan), {})
        refuses.restore()
        self.assertEqual(len(await self.numbers()), 3)
        self.assertEqual(await exporter.apply(plan), {})
        self.assertEqual(await self.trees(), self.wanted(plan))

    async def test_another_server(self) -> None:
        """After a restart of the server exports have the numbers that nodes know."""
        exporter = self.make()
        plan = self.plan([0, 1, 2])
        await exporter.apply(self.plan([3, 1, 0]))
        await exporter.apply(plan)
        before = await self.numbers()
        await exporter.stopService()
        self.assertEqual(await self.another().apply(plan), {})
        self.assertEqual(await self.numbers(), before)
        self.assertEqual(await self.trees(), self.wanted(plan))

    async def test_given_up(self) -> None:
        """A server that stops waits for nothing: whoever is left out has a reason."""
        exporter = self.make()
        plan = self.plan([0] * 40)
        applying = Deferred.fromCoroutine(exporter.apply(plan))
        exporter.give_up()
        failures = await applying
        self.assertEqual(set(failures), {node.mac for node in plan.nodes})
        self.assertEqual(set(failures.values()), {STOPPED})
        other = await exporter.apply(self.plan([1] * 3))
        self.assertEqual(set(other.values()), {STOPPED})
        await exporter.withdraw()
        # The next server has them all.
        await exporter.stopService()
        self.assertEqual(await self.another().apply(plan), {})
        self.assertEqual(await self.trees(), self.wanted(plan))

    async def test_given_up_in_the_middle(self) -> None:
        """The same while it takes orders."""
        exporter = self.make()
        self.assertEqual(await exporter.apply(self.plan([0])), {})
        plan = self.plan([choice % 4 for choice in range(40)])
        applying = Deferred.fromCoroutine(exporter.apply(plan))
        await deferLater(reactor, 0.02, lambda: None)
        exporter.give_up()
        self.assertLessEqual(set((await applying).values()), {STOPPED})
        await exporter.withdraw()

    async def test_given_up_while_it_starts(self) -> None:
        """One that comes up while it is told to end stays ended."""
        exporter = self.make()
        applying = Deferred.fromCoroutine(exporter.apply(self.plan([0])))
        while exporter.child.pid is None:
            await deferLater(reactor, 0.01, lambda: None)
        exporter.give_up()
        await applying
        await exporter.withdraw()
        await deferLater(reactor, 1, lambda: None)
        self.assertIsNone(exporter.child.pid)

    async def test_all_day_long(self) -> None:
        """Exports come and go all day long; ganesha stays the one it was."""
        exporter = self.make()
        choice = random.Random(12)
        await exporter.apply(self.plan([0]))
        pid = exporter.child.pid
        asked, order = list[str](), exporter.orders.give
        self.patch(exporter.orders, "give", lambda member, *rest: (
            asked.append(member), order(member, *rest)
        )[1])
        for _ in range(50):
            plan = self.plan([choice.choice([None, 0, 1, 2, 3]) for _ in range(60)])
            self.assertEqual(await exporter.apply(plan), {})
        # Of what it exports it tells at length: with thousands, nodes would wait for it.
        self.assertNotIn("ShowExports", asked)
        self.assertEqual(await self.trees(), self.wanted(plan))
        self.assertEqual(exporter.child.pid, pid)
