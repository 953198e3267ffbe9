"""What NFS exports: plans as ganesha's exports and links, files of the kernel's exporter."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network, collapse_addresses
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import CommandFailed
from walt.server.adapters.nfs import ganesha_config
from walt.server.adapters.nfs.blocks import block_of, networks_of
from walt.server.adapters.nfs.choice import usable
from walt.server.adapters.nfs.exports import (
    EXPORTS,
    FIRST_ID,
    LAST_ID,
    ExportNumbers,
    Followed,
    Links,
    exports_of,
    links_of,
)
from walt.server.adapters.nfs.links import LinkTree
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.runtime.process import ProcessResult

NET = IPv4Network("192.168.1.0/24")
PLACE = Path("/s/images") / ("ab" * 32) / "fs"
IMAGE = ImageExport("ab" * 32, PLACE, ("192.168.1.10",))
NODE = NodeExport("52:54:00:00:00:01", "192.168.1.10", "n1", IMAGE.image_id, Path("/s/p/ann"))
OTHER = ImageExport("cd" * 32, Path("/s/images") / ("cd" * 32) / "fs", ("192.168.1.10",))


class ExportsTests(SynchronousTestCase):
    def blocks(self, plan: ExportPlan) -> dict[str, dict[str, str]]:
        """Return the values of the blocks of a plan, by pseudo path."""
        exports = exports_of(plan)
        numbers = ExportNumbers({}).allocate(exports.by_key)
        text = "".join(
            ganesha_config.export(number, exports.by_key[key]) for key, number in numbers.items()
        )
        blocks = [
            dict(re.findall(r"(\w+) = ([^;]+);", block))
            for block in re.findall(r"^EXPORT \{.*?^\}", text, re.MULTILINE | re.DOTALL)
        ]
        return {block["Pseudo"].strip('"'): block for block in blocks}

    def test_links_are_told_as_they_are(self) -> None:
        """What changes under ganesha is not kept by it: a node boots the image of now."""
        exports = exports_of(ExportPlan(NET, (IMAGE,), (NODE,)))
        one = next(iter(exports.by_key.values()))
        kept = "Attr_Expiration_Time = 0;"
        self.assertNotIn(kept, ganesha_config.export(1, one))
        self.assertIn(kept, ganesha_config.export(1, one, "/var/lib/walt/nodes"))

    def reached(self, plan: ExportPlan, path: str) -> dict[str, str] | None:
        """Return the block that a node reaches by a path below its nodes directory."""
        exports = exports_of(plan)
        numbers = ExportNumbers({}).allocate(exports.by_key)
        tree = links_of(plan, exports, numbers)
        first, last = path.split("/")
        directory = tree[""].get(first, first)
        target = tree[directory].get(last)
        if target is None:
            return None
        self.assertTrue(target.startswith("../../exports/"))
        return self.blocks(plan)[f"{EXPORTS}/{target.rpartition('/')[2]}"]

    def test_each_node_reaches_its_own(self) -> None:
        """The image read-only and /persist read-write, for addresses that may read it alone."""
        plan = ExportPlan(NET, (IMAGE,), (NODE,))
        for alias in ("192.168.1.10", "52:54:00:00:00:01", "n1"):
            for what in ("fs", "persist"):
                block = self.reached(plan, f"{alias}/{what}")
                assert block is not None
                writable = what == "persist"
                self.assertEqual(block["Access_Type"], "RW" if writable else "RO")
                self.assertEqual(block["Clients"], NODE.ip if writable else f"{NODE.ip}/32")
                self.assertEqual(block["Path"], f'"{NODE.persist if writable else IMAGE.path}"')
        self.assertEqual(len(self.blocks(plan)), 2)

    def test_no_persist_no_image(self) -> None:
        """Without persistent directory, or with an image not mounted, there is nothing to find."""
        bare = NodeExport(NODE.mac, NODE.ip, NODE.name, "cd" * 32, None)
        plan = ExportPlan(NET, (replace(IMAGE, readers=()),), (bare,))
        self.assertEqual(self.blocks(plan), {})
        self.assertIsNone(self.reached(plan, "n1/fs"))
        self.assertIsNone(self.reached(plan, "n1/persist"))

    def test_a_name_hides_no_address(self) -> None:
        """Links of addresses win over names."""
        odd = NodeExport("52:54:00:00:00:02", "192.168.1.11", "n2", None, None)
        tree = links_of(ExportPlan(NET, (), (odd, NODE)), exports_of(ExportPlan(NET)), {})
        self.assertEqual(tree[""]["192.168.1.10"], NODE.mac)
        self.assertEqual(tree[""]["n1"], NODE.mac)
        self.assertEqual(tree[NODE.mac], {})

    def test_numbers_do_not_depend_on_other_exports(self) -> None:
        """After a restart or with more nodes, an export keeps number and file system id."""
        other = NodeExport("52:54:00:00:00:02", "192.168.1.11", "n2", IMAGE.image_id, None)
        both = replace(IMAGE, readers=("192.168.1.10", "192.168.1.11"))
        alone = self.blocks(ExportPlan(NET, (IMAGE,), (NODE,)))
        more = self.blocks(ExportPlan(NET, (both,), (NODE, other)))
        for path, block in alone.items():
            image = block["Access_Type"] == "RO"
            clients = "192.168.1.10/31" if image else NODE.ip
            self.assertEqual(more[path], {**block, "Clients": clients})

    def test_readers_of_an_image_share_exports(self) -> None:
        """One for each block of 256 addresses that some of them are in."""
        readers = ("192.168.1.10", "192.168.1.11", "192.168.1.13", "192.168.2.255")
        nodes = tuple(
            NodeExport(f"52:54:00:00:00:{number:02x}", ip, f"n{number}", IMAGE.image_id, None)
            for number, ip in enumerate((*readers, "192.168.1.12"))
        )
        plan = ExportPlan(NET, (replace(IMAGE, readers=readers),), nodes)
        found = [self.reached(plan, f"n{number}/fs") for number in range(5)]
        self.assertEqual([block and block["Clients"] for block in found], [
            *["192.168.1.10/31, 192.168.1.13/32"] * 3, "192.168.2.255/32", None,
        ])
        self.assertEqual(len({block["Filesystem_Id"] for block in found if block}), 1)
        shared, _ = sorted(exports_of(plan).by_key.values(), key=lambda export: export.scope)
        self.assertEqual(
            [shared.serves(ip) for ip in (*readers, "192.168.1.12")],
            [True, True, True, False, False],
        )

    def test_another_image(self) -> None:
        """A node with another image finds another export; the former stays as it is."""
        plan = ExportPlan(NET, (IMAGE,), (NODE,))
        moved = ExportPlan(NET, (IMAGE, OTHER), (replace(NODE, image_id=OTHER.image_id),))
        before, after = self.blocks(plan), self.blocks(moved)
        self.assertEqual({path: after[path] for path in before}, before)
        block = self.reached(moved, "n1/fs")
        assert block is not None
        self.assertEqual(block["Path"], f'"{OTHER.path}"')

    def test_server_wide_settings(self) -> None:
        """NFSv4 alone, on the server's address, with records and times of our own."""
        text = ganesha_config.core("192.168.1.1", Path("/s/recovery"), 4)
        for line in (
            "Protocols = 4;", "Bind_addr = 192.168.1.1;", 'RecoveryRoot = "/s/recovery";',
            "Lease_Lifetime = 15;", "Grace_Period = 20;",
        ):
            self.assertIn(line, text)
        # Each version gets the settings that it knows.
        self.assertNotIn("io_flusher", text)
        newer = ganesha_config.core("192.168.1.1", Path("/s/recovery"), 6)
        self.assertIn("allow_set_io_flusher_fail = true;", newer)
        self.assertEqual(ganesha_config.major_version("NFS-Ganesha Release = V4.3\n"), 4)
        self.assertEqual(ganesha_config.major_version("NFS-Ganesha Release = V6.5\n"), 6)
        self.assertEqual(ganesha_config.major_version("?"), 0)

    def test_paths_cannot_inject(self) -> None:
        """A path that would end its string is refused."""
        odd = ImageExport("ab" * 32, Path('/s/"; }'), ("192.168.1.10",))
        with self.assertRaises(ValueError):
            self.blocks(ExportPlan(NET, (odd,), (NODE,)))

    def test_record(self) -> None:
        """The file of an export tells its key; others tell none."""
        (export,) = exports_of(ExportPlan(NET, (IMAGE,))).by_key.values()
        text = ganesha_config.record(7, export)
        self.assertEqual(ganesha_config.recorded_key(text.splitlines(True)), export.key)
        self.assertIsNone(ganesha_config.recorded_key(["EXPORT {"]))
        self.assertIsNone(ganesha_config.recorded_key([]))


def address(number: int) -> str:
    """Return one of some addresses, those of three blocks by turns."""
    return f"192.168.{1 + number % 3}.{number}"


class BlockTests(SynchronousTestCase):
    @given(st.sets(st.integers(0, 255)))
    def test_as_the_library_has_it(self, last: set[int]) -> None:
        """Networks of a block are what `ipaddress` makes of its addresses."""
        addresses = [f"10.1.2.{number}" for number in last]
        self.assertEqual(
            networks_of("10.1.2", addresses),
            [str(network) for network in collapse_addresses(map(IPv4Network, addresses))],
        )
        self.assertEqual({block_of(ip) for ip in addresses} - {"10.1.2"}, set())


class FollowedTests(SynchronousTestCase):
    """What is kept and changed is what a derivation from nothing gives."""

    @given(st.lists(st.tuples(
        # Of nodes 1 to 4: image, persistent data (owner), address; of images: readers.
        st.dictionaries(st.integers(1, 4), st.tuples(
            st.sampled_from(["ab" * 32, "cd" * 32, None]), st.sampled_from(["ann", "joe", None]),
            st.booleans(),
        )),
        st.dictionaries(
            st.sampled_from(["ab" * 32, "cd" * 32]),
            st.tuples(st.sets(st.integers(1, 8)), st.booleans()),
        ),
        st.sets(st.integers(1, 4)),
    ), max_size=8))
    def test_after_any_plans(
        self, steps: list[tuple[
            dict[int, tuple[str | None, str | None, bool]], dict[str, tuple[set[int], bool]],
            set[int],
        ]],
    ) -> None:
        """Exports, links and numbers; some exports are refused for a while."""
        followed, links, numbers = Followed(), Links(), ExportNumbers({})
        with tempfile.TemporaryDirectory() as place:
            tree = LinkTree(Path(place))
            for found, images, refused in steps:
                plan = ExportPlan(NET, tuple(
                    ImageExport(image, Path("/t" if elsewhere else "/s") / image, tuple(
                        sorted(address(reader) for reader in readers)
                    )) for image, (readers, elsewhere) in sorted(images.items())
                ), tuple(
                    NodeExport(
                        f"52:54:00:00:00:0{number}", address(number + 4 * moved),
                        f"n{number}", image, Path(f"/s/{number}/{owner}") if owner else None,
                    ) for number, (image, owner, moved) in sorted(found.items())
                ))
                before = set(links.macs)
                list(followed.take(plan))
                wanted = exports_of(plan)
                self.assertEqual(followed.exports, wanted)
                self.assertEqual(followed.macs, {node.mac for node in plan.nodes})
                gone = numbers.present.keys() - wanted.by_key.keys()
                list(numbers.change(gone, wanted.by_key.keys() - numbers.present.keys()))
                held = {
                    key: number for key, number in numbers.present.items()
                    if number % 5 not in refused
                }
                macs = before | followed.macs
                nodes = [node for node in plan.nodes if node.mac in macs]
                list(links.change(macs - followed.macs, nodes, wanted, held))
                self.assertEqual(links.tree, links_of(plan, wanted, held))
                list(tree.apply(links.tree, macs))
                self.assertEqual(tree._present, links.tree)

    def test_links_of_what_changed(self) -> None:
        """Nodes that no plan changed keep their links; addresses change hands."""
        one, two = NODE, replace(NODE, mac="52:54:00:00:00:02", ip="192.168.1.11", name="n2")
        plan, links = ExportPlan(NET, (IMAGE,), (one, two)), Links()
        followed = Followed()
        list(followed.take(plan))
        numbers = ExportNumbers({}).allocate(followed.by_key)
        list(links.change((), plan.nodes, followed.exports, numbers))
        swapped = replace(one, ip=two.ip), replace(two, ip=one.ip)
        plan = plan._replace(nodes=swapped)
        list(followed.take(plan))
        self.assertEqual(followed.touched, {one.mac, two.mac})
        self.assertEqual(followed.exports, exports_of(plan))
        list(links.change((), swapped, followed.exports, numbers))
        self.assertEqual(links.tree, links_of(plan, followed.exports, numbers))
        list(followed.take(plan._replace(nodes=(swapped[0],))))
        self.assertEqual(followed.touched, {two.mac})


class NumbersTests(SynchronousTestCase):
    @given(st.sets(st.text(min_size=1, max_size=20), max_size=300))
    def test_distinct_16_bit_numbers(self, keys: set[str]) -> None:
        """Any set of exports gets distinct numbers that ganesha accepts."""
        numbers = ExportNumbers({}).allocate(list(keys))
        self.assertEqual(set(numbers), keys)
        self.assertEqual(len(set(numbers.values())), len(keys))
        self.assertTrue(all(FIRST_ID <= one <= LAST_ID for one in numbers.values()))

    @given(st.lists(st.sets(st.integers(0, 400), max_size=300), min_size=2, max_size=4))
    def test_numbers_never_change_hands(self, steps: list[set[int]]) -> None:
        """From one plan to the next, a number stays with its export; a restart changes none."""
        book, before = ExportNumbers({}, last=1001), dict[str, int]()
        for step in steps:
            now = book.allocate(str(one) for one in step)
            self.assertEqual(len(set(now.values())), len(step))
            owners = {number: key for key, number in before.items()}
            for key, number in now.items():
                self.assertEqual(owners.get(number, key), key)
            before = now
        self.assertEqual(ExportNumbers(before, last=1001).allocate(before), before)

    def test_held_numbers(self) -> None:
        """What ganesha still exports keeps its number from others."""
        self.assertEqual(
            ExportNumbers({}, last=FIRST_ID + 1).allocate(["a"], {FIRST_ID}), {"a": FIRST_ID + 1}
        )
        with self.assertRaises(ValueError):
            ExportNumbers({}, last=FIRST_ID + 1).allocate(["a", "b"], {FIRST_ID})


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
        with self.assertRaises(ValueError):
            ImageExport("ab" * 32, Path("/x"), ("192.168.1.10(rw)",))


class KernelTests(SynchronousTestCase):
    def setUp(self) -> None:
        from walt.server.adapters.nfs import kernel

        self.kernel = kernel
        self.base = Path(tempfile.mkdtemp(prefix="wtnf-"))
        self.addCleanup(shutil.rmtree, self.base)
        self.ran: list[list[str]] = []
        self.refusing = False
        self.exporter = kernel.KernelExporter(
            self, nodes=Path("/var/lib/walt/nodes"), directory=self.base / "exports.d",
            clients=self.base / "clients",
        )

    async def run_command(self, argv: list[str]) -> ProcessResult:
        self.ran.append(argv)
        if self.refusing:
            raise CommandFailed("exportfs: no")
        return ProcessResult(tuple(argv), 0, b"", b"")

    def test_clients_end_with_the_exports(self) -> None:
        """What nodes hold open would keep images mounted; clients of other networks go on."""
        self.apply(ExportPlan(NET, (), ()))
        self.ran.clear()
        for number, address in enumerate(("192.168.1.61:756", "10.0.0.7:800", "[fd00::1]:700")):
            place = self.base / "clients" / str(number)
            place.mkdir(parents=True)
            (place / "info").write_text(f'clientid: 0x1\naddress: "{address}"\nname: "x"\n')
        self.successResultOf(Deferred.fromCoroutine(self.exporter.withdraw()))
        self.assertEqual(self.ran, [["tee", str(self.base / "clients/0/ctl")]])

    def run(self, *words: object, **more: object):  # type: ignore[no-untyped-def]
        """Be the process runner for lists of words, and a test case otherwise."""
        if isinstance(words[0], list):
            return self.run_command(words[0])
        return super().run(*words, **more)  # type: ignore[arg-type]

    def apply(self, plan: ExportPlan) -> Mapping[str, str]:
        return self.successResultOf(Deferred.fromCoroutine(self.exporter.apply(plan)))

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
            "/var/lib/walt/nodes 192.168.1.0/24(ro,sync,all_squash,anonuid=65533,"
            "anongid=65533,subtree_check)",
            f"{IMAGE.path} {NODE.ip}(fsid={'ab' * 16},ro,{options}",
        ])
        lines = (self.base / "exports.d/walt-persist.exports").read_text().splitlines()[1:]
        self.assertEqual(lines, [f"{self.base}/p\\040ann {NODE.ip}(rw,{options}"])
        self.assertTrue((self.base / "p ann").is_dir())
        # Given another image, a node may read the former one as long as the plan says so.
        self.apply(ExportPlan(NET, (IMAGE,), (replace(node, image_id="cd" * 32),)))
        text = (self.base / "exports.d/walt.exports").read_text()
        self.assertIn(f"{IMAGE.path} {NODE.ip}(", text)
        self.apply(ExportPlan(NET, (replace(IMAGE, readers=()),), ()))
        self.assertNotIn(NODE.ip, (self.base / "exports.d/walt.exports").read_text())

    def test_refused(self) -> None:
        """A failure is told for each node, and the same plan is tried again."""
        node = replace(NODE, persist=None)
        plan = ExportPlan(NET, (IMAGE,), (node,))
        self.refusing = True
        self.assertEqual(self.apply(plan), {NODE.mac: "exportfs: no"})
        self.refusing = False
        self.assertEqual(self.apply(plan), {})
        self.assertEqual(self.apply(plan), {})
        self.assertEqual(len(self.ran), 2)

    def test_withdraw(self) -> None:
        """At a stop for good nothing stays exported."""
        self.apply(ExportPlan(NET, (IMAGE,), (replace(NODE, persist=None),)))
        self.successResultOf(Deferred.fromCoroutine(self.exporter.withdraw()))
        for name in ("walt.exports", "walt-persist.exports"):
            text = (self.base / "exports.d" / name).read_text()
            self.assertEqual([line for line in text.splitlines() if line[0] != "#"], [])
        self.assertEqual(len(self.ran), 2)

    def test_usable(self) -> None:
        """The kernel's server needs nfsd and exportfs."""
        (self.base / "filesystems").write_text("nodev\tsysfs\nnodev\tnfsd\n")
        self.assertTrue(usable(self.base, lambda name: "/usr/sbin/exportfs"))
        self.assertFalse(usable(self.base, lambda name: None))
        (self.base / "filesystems").write_text("nodev\tsysfs\n")
        self.assertFalse(usable(self.base, lambda name: "/usr/sbin/exportfs"))
