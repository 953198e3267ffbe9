"""Configuration of ganesha, and when the daemon is told."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from walt.server.adapters.nfs import ganesha
from walt.server.adapters.nfs.ganesha import (
    ASIDE,
    ExportIds,
    exported_nodes,
    exports_of,
    render,
    superseded,
)
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport

NET = IPv4Network("192.168.1.0/24")
IMAGE = ImageExport("ab" * 32, Path("/s/images") / ("ab" * 32) / "fs")
NODE = NodeExport("52:54:00:00:00:01", "192.168.1.10", "n1", IMAGE.image_id, Path("/s/p/ann"))


class RenderTests(SynchronousTestCase):
    def render(self, *nodes: NodeExport) -> str:
        plan = ExportPlan(NET, (IMAGE,), nodes)
        return render(exports_of(plan), "192.168.1.1", Path("/s/recovery"))

    def blocks(self, text: str) -> list[dict[str, str]]:
        return [
            dict(re.findall(r"(\w+) = ([^;]+);", block))
            for block in re.findall(r"^EXPORT \{.*?^\}", text, re.MULTILINE | re.DOTALL)
        ]

    def test_each_node_has_its_own_exports(self) -> None:
        """The image read-only and /persist read-write, for the node's address alone."""
        blocks = self.blocks(self.render(NODE))
        by_pseudo = {block["Pseudo"].strip('"'): block for block in blocks}
        tree = "/var/lib/walt/nodes"
        self.assertEqual(
            set(by_pseudo),
            {f"{tree}/{alias}/{what}" for alias in ("192.168.1.10", "52:54:00:00:00:01", "n1")
             for what in ("fs", "persist")},
        )
        for pseudo, block in by_pseudo.items():
            writable = pseudo.endswith("persist")
            self.assertEqual(block["Access_Type"], "RW" if writable else "RO")
            self.assertEqual(block["Clients"], "192.168.1.10")
            self.assertEqual(block["Path"], f'"{NODE.persist if writable else IMAGE.path}"')
        self.assertEqual(len({block["Export_Id"] for block in blocks}), len(blocks))

    def test_no_persist_no_image(self) -> None:
        """Without persistent directory, or with an image not mounted, there is no export."""
        bare = NodeExport(NODE.mac, NODE.ip, NODE.name, "cd" * 32, None)
        self.assertEqual(self.blocks(self.render(bare)), [])
        plan = ExportPlan(NET, (IMAGE,), (bare, NODE))
        self.assertEqual(exported_nodes(plan), [NODE])

    def test_ids_do_not_depend_on_other_exports(self) -> None:
        """After a restart or with more nodes, an export keeps number and file system id."""
        other = NodeExport("52:54:00:00:00:02", "192.168.1.11", "n2", IMAGE.image_id, None)
        alone, both = self.render(NODE), self.render(NODE, other)
        for block in self.blocks(alone):
            self.assertIn(block, self.blocks(both))

    def test_another_image(self) -> None:
        """A node with another image gets another export; the former goes aside, same number."""
        other = ImageExport("cd" * 32, Path("/s/images") / ("cd" * 32) / "fs")
        before = exports_of(ExportPlan(NET, (IMAGE, other), (NODE,)))
        moved = NodeExport(NODE.mac, NODE.ip, NODE.name, other.image_id, NODE.persist)
        now = exports_of(ExportPlan(NET, (IMAGE, other), (moved,)))
        aside = superseded(before, now, {IMAGE.path, other.path})
        self.assertEqual({one.path for one in aside}, {IMAGE.path})
        numbers = {block["Export_Id"] for block in self.blocks(self.render(NODE))}
        blocks = self.blocks(render(now, "192.168.1.1", Path("/s/recovery"), aside))
        kept = [block for block in blocks if block["Pseudo"].startswith(f'"{ASIDE}')]
        self.assertEqual(len(kept), 3)
        self.assertTrue({block["Export_Id"] for block in kept} <= numbers)
        self.assertEqual(len({block["Export_Id"] for block in blocks}), len(blocks))
        # It stays while its image is mounted, and comes back with its image.
        self.assertEqual(superseded(aside, now, {other.path}), [])
        self.assertEqual(superseded([*now, *aside], before, {IMAGE.path, other.path})[0].path,
                         other.path)

    def test_server_wide_settings(self) -> None:
        """NFSv4 alone, on the server's address, with records and times of our own."""
        text = self.render()
        for line in (
            "Protocols = 4;", "Bind_addr = 192.168.1.1;", 'RecoveryRoot = "/s/recovery";',
            "Lease_Lifetime = 15;", "Grace_Period = 20;",
        ):
            self.assertIn(line, text)

    def test_paths_cannot_inject(self) -> None:
        """A path that would end its string is refused."""
        odd = ImageExport("ab" * 32, Path('/s/"; }'))
        with self.assertRaises(ValueError):
            render(exports_of(ExportPlan(NET, (odd,), (NODE,))), "192.168.1.1", Path("/s"))

    @given(st.sets(st.text(min_size=1, max_size=20), max_size=300))
    def test_ids_are_distinct_16_bit_numbers(self, pseudos: set[str]) -> None:
        """Any set of paths gets distinct numbers that ganesha accepts."""
        ids = ExportIds().allocate(list(pseudos))
        self.assertEqual(set(ids), pseudos)
        self.assertEqual(len(set(ids.values())), len(pseudos))
        self.assertTrue(all(1 <= one <= 65535 for one in ids.values()))


    @given(st.lists(st.sets(st.integers(0, 400), max_size=300), min_size=2, max_size=4))
    def test_numbers_never_change_hands(self, steps: list[set[int]]) -> None:
        """From one configuration to the next, a number stays with its export."""
        self.patch(ganesha, "MAX_EXPORT_ID", 1000)
        ids, before = ExportIds(), dict[str, int]()
        for step in steps:
            now = ids.allocate(str(one) for one in step)
            self.assertEqual(len(set(now.values())), len(step))
            owners = {number: key for key, number in before.items()}
            for key, number in now.items():
                self.assertEqual(owners.get(number, key), key)
            before = now


class PlanTests(SynchronousTestCase):
    def test_values_are_checked(self) -> None:
        """A plan holds only what may be written into configuration files."""
        for mac, ip, name in (
            ("52:54:00:00:00:0G", "192.168.1.10", "n1"), (NODE.mac, "192.168.1.10;", "n1"),
            (NODE.mac, "192.168.1.10", "n1;"), (NODE.mac, "192.168.1.10", "../n1"),
        ):
            with self.assertRaises(ValueError):
                NodeExport(mac, ip, name, None, None)
        with self.assertRaises(ValueError):
            ImageExport("../x", Path("/x"))


class KernelTests(SynchronousTestCase):
    def setUp(self) -> None:
        from walt.server.adapters.nfs import kernel

        self.kernel = kernel
        self.base = Path(tempfile.mkdtemp(prefix="wtnf-"))
        self.addCleanup(shutil.rmtree, self.base)
        self.ran: list[list[str]] = []
        self.exporter = kernel.KernelExporter(
            self, nodes=Path("/var/lib/walt/nodes"), directory=self.base / "exports.d"
        )

    async def run_command(self, argv: list[str]) -> None:
        self.ran.append(argv)

    def run(self, *words: object, **more: object):  # type: ignore[no-untyped-def]
        """Be the process runner for lists of words, and a test case otherwise."""
        if isinstance(words[0], list):
            return self.run_command(words[0])
        return super().run(*words, **more)  # type: ignore[arg-type]

    def apply(self, plan: ExportPlan) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.exporter.apply(plan)))

    def test_lines(self) -> None:
        """The lines are those of the specification; exportfs runs only on a change."""
        node = NodeExport(NODE.mac, NODE.ip, NODE.name, IMAGE.image_id, self.base / "p ann")
        plan = ExportPlan(NET, (IMAGE,), (node,))
        self.apply(plan)
        self.apply(plan)
        self.assertEqual(self.ran, [["exportfs", "-r", "-f"]])
        options = "sync,no_root_squash,no_subtree_check)"
        lines = (self.base / "exports.d/walt.exports").read_text().splitlines()[1:]
        self.assertEqual(lines, [
            "/var/lib/walt/nodes 192.168.1.0/24(ro,sync,root_squash,no_subtree_check)",
            f"{IMAGE.path} {NODE.ip}(fsid={'ab' * 16},ro,{options}",
        ])
        lines = (self.base / "exports.d/walt-persist.exports").read_text().splitlines()[1:]
        self.assertEqual(lines, [f"{self.base}/p\\040ann {NODE.ip}(rw,{options}"])
        self.assertTrue((self.base / "p ann").is_dir())
        # Given another image, a node may read the former one until it is unmounted.
        self.apply(ExportPlan(NET, (IMAGE,), (replace(node, image_id="cd" * 32),)))
        text = (self.base / "exports.d/walt.exports").read_text()
        self.assertIn(f"{IMAGE.path} {NODE.ip}(", text)
        self.apply(ExportPlan(NET, (), ()))
        self.apply(ExportPlan(NET, (IMAGE,), ()))
        self.assertNotIn(NODE.ip, (self.base / "exports.d/walt.exports").read_text())

    def test_withdraw(self) -> None:
        """At a stop for good nothing stays exported."""
        self.apply(ExportPlan(NET, (IMAGE,), (NODE,)))
        self.successResultOf(Deferred.fromCoroutine(self.exporter.withdraw()))
        for name in ("walt.exports", "walt-persist.exports"):
            text = (self.base / "exports.d" / name).read_text()
            self.assertEqual([line for line in text.splitlines() if line[0] != "#"], [])
        self.assertEqual(len(self.ran), 2)

    def test_usable(self) -> None:
        """The kernel's server needs nfsd and exportfs."""
        (self.base / "filesystems").write_text("nodev\tsysfs\nnodev\tnfsd\n")
        self.assertTrue(self.kernel.usable(self.base, lambda name: "/usr/sbin/exportfs"))
        self.assertFalse(self.kernel.usable(self.base, lambda name: None))
        (self.base / "filesystems").write_text("nodev\tsysfs\n")
        self.assertFalse(self.kernel.usable(self.base, lambda name: "/usr/sbin/exportfs"))
