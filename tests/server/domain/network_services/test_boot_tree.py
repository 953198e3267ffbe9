from __future__ import annotations

from ipaddress import IPv4Interface

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.devices.derived import Followed
from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.boot_tree import (
    MOST_OFFERED,
    BootLinks,
    BootTree,
    boot_tree,
    difference,
)

INTERFACE = IPv4Interface("192.168.1.1/28")
IMAGE = "ab" * 32
MOUNTS = {"joe/img:latest": IMAGE}
MAC = "02:00:00:00:00:05"


def node(**changes: object) -> Device:
    """Return a node of joe."""
    values = {"mac": MAC, "name": "node-5", "type": "node", "ip": "192.168.1.5",
              "model": "pc-x86-64", "image": "joe/img:latest", **changes}
    return Device(**values)  # type: ignore[arg-type]


class BootTreeTests(SynchronousTestCase):
    def test_node(self) -> None:
        """A node has its directory, its three links and three aliases."""
        tree = boot_tree(INTERFACE, [node()], MOUNTS)
        self.assertEqual(tree.dirs, {"probing", MAC})
        self.assertEqual(tree.links[f"{MAC}/fs"], f"../../images/{IMAGE}/fs")
        self.assertEqual(tree.links[f"{MAC}/tftp"], f"../../images/{IMAGE}/fs/boot/pc-x86-64")
        self.assertEqual(tree.links[f"{MAC}/persist"], "persist_dirs/joe")
        for alias in ("192.168.1.5", "node-5", "02-00-00-00-00-05"):
            self.assertEqual(tree.links[alias], MAC)
        self.assertEqual(tree.kept, {f"{MAC}/persist_dirs", f"{MAC}/persist_dirs/joe"})

    def test_free_addresses_and_unknown_boards(self) -> None:
        """Every unallocated address, and unknown Raspberry Pis, lead to the static files."""
        board = Device("b8:27:eb:00:00:01", "unknown-000001", "unknown", "192.168.1.6")
        pc = Device("02:00:00:00:00:07", "unknown-000007", "unknown", "192.168.1.7")
        tree = boot_tree(INTERFACE, [node(), board, pc], MOUNTS)
        probing = {link for link, target in tree.links.items() if target == "probing"}
        self.assertEqual(
            probing,
            {"192.168.1.2", "192.168.1.3", "192.168.1.4", "192.168.1.6",
             *(f"192.168.1.{n}" for n in range(8, 15)),
             "b8:27:eb:00:00:01", "b8-27-eb-00-00-01", "unknown-000001"},
        )
        self.assertEqual(tree.links["probing/tftp"], "../../tftp-static")

    def test_wide_network(self) -> None:
        """In a network wider than /20, free addresses get links once they are offered."""
        tree = boot_tree(IPv4Interface("10.0.0.1/19"), [], {})
        self.assertEqual(set(tree.links), {"probing/tftp"})
        links = BootLinks(IPv4Interface("10.0.0.1/19"))
        self.assertTrue(links.offer("10.0.31.9"))
        self.assertFalse(links.offer("10.0.31.9"))
        for ip in ("10.0.0.1", "10.0.32.1", "10.0.31.255", "x", "1.2.3.4.5"):
            self.assertFalse(links.offer(ip), ip)
        self.assertEqual(links.tree({}).whole.links, {
            "probing/tftp": "../../tftp-static", "10.0.31.9": "probing",
        })
        # Whoever is recorded there has its own links; the last ones offered are kept.
        followed = Followed()
        links.change(followed.look([node(ip="10.0.31.9")]))
        self.assertEqual(links.tree({}).whole.links["10.0.31.9"], MAC)
        links.change(followed.look([]))
        self.assertEqual(links.tree({}).whole.links["10.0.31.9"], "probing")
        for number in range(MOST_OFFERED):
            links.offer(f"10.0.{number // 250}.{number % 250 + 2}")
        wanted = links.tree({}).whole.links
        self.assertNotIn("10.0.31.9", wanted)
        self.assertEqual(len(wanted), MOST_OFFERED + 1)
        # A narrow one has them all.
        self.assertFalse(BootLinks(INTERFACE).offer("192.168.1.9"))

    def test_stopping_and_not_mounted(self) -> None:
        """At an orderly stop, and while the image is not mounted, boards loop."""
        self.assertEqual(
            boot_tree(INTERFACE, [node()], MOUNTS, stopping=True).links[f"{MAC}/tftp"],
            "../../tftp-static",
        )
        tree = boot_tree(INTERFACE, [node()], {})
        self.assertEqual(tree.links[f"{MAC}/tftp"], "../../tftp-static")
        self.assertNotIn(f"{MAC}/fs", tree.links)

    def test_persist_forbidden(self) -> None:
        """mount.persist=false leads to a directory that never exists."""
        tree = boot_tree(INTERFACE, [node(conf={"mount.persist": False})], MOUNTS)
        self.assertEqual(tree.links[f"{MAC}/persist"], "forbidden_dir")

    def test_who_gets_a_directory(self) -> None:
        """Only nodes with an address in walt-net."""
        others = [
            node(mac="02:00:00:00:00:01", name="n1", ip=None),
            node(mac="02:00:00:00:00:02", name="n2", ip="10.0.0.1"),
            node(mac="02:00:00:00:00:03", name="n3", type="switch", ip="192.168.1.3"),
            node(mac="../../etc", name="n4", ip="192.168.1.4"),
        ]
        self.assertEqual(boot_tree(INTERFACE, others, MOUNTS).dirs, {"probing"})

    def test_names_never_hide_other_entries(self) -> None:
        """A node called `probing`, or like the dashed MAC of another, hides nothing."""
        twin = node(mac="02:00:00:00:00:06", name="a2-00-00-00-00-05", ip="192.168.1.6")
        third = node(mac="a2:00:00:00:00:05", name="probing", ip="192.168.1.7")
        tree = boot_tree(INTERFACE, [twin, third], MOUNTS)
        self.assertEqual(tree.links["a2-00-00-00-00-05"], "a2:00:00:00:00:05")
        self.assertNotIn("probing", tree.links)

    def test_hostile_owner_and_model(self) -> None:
        """An image name or model that is no name never becomes part of a link."""
        tree = boot_tree(
            INTERFACE, [node(image="../x/img:latest", model="../../etc")],
            {"../x/img:latest": "../../../etc"},
        )
        self.assertEqual(tree.links[f"{MAC}/tftp"], "../../tftp-static")
        self.assertEqual(tree.links[f"{MAC}/persist"], "forbidden_dir")

    def test_thousands_of_nodes(self) -> None:
        """Of 4,000 nodes in a /20, one that is gone changes its own part alone."""
        interface = IPv4Interface("10.0.0.1/20")
        nodes = [
            node(mac=f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", name=f"node-{n}",
                 ip=f"10.0.{(n + 10) >> 8}.{(n + 10) & 255}")
            for n in range(4000)
        ]
        tree = boot_tree(interface, nodes, MOUNTS)
        change = difference(tree, boot_tree(interface, nodes[1:], MOUNTS))
        self.assertEqual(change.drop_dirs, ("02:00:00:00:00:00",))
        self.assertEqual(set(change.drop_links), {"02-00-00-00-00-00", "node-0"})
        self.assertEqual((change.make_dirs, change.set_links), ((), (("10.0.0.10", "probing"),)))


names = st.sampled_from(["a", "b", "c", "d/x", "e/x"])
trees = st.builds(
    lambda links, dirs: BootTree(
        frozenset({"d", "e"} & dirs), {k: v for k, v in links.items()
                                       if "/" not in k or k[0] in dirs}
    ),
    st.dictionaries(names, st.sampled_from(["1", "2"])), st.sets(st.sampled_from(["d", "e"])),
)


class DifferenceTests(SynchronousTestCase):
    @given(trees, trees)
    def test_leads_from_one_to_the_other(self, old: BootTree, new: BootTree) -> None:
        """Applying the difference in its order to `old` gives `new`."""
        change = difference(old, new)
        links, dirs = dict(old.links), set(old.dirs)
        for link in change.drop_links:
            del links[link]
        for name in change.drop_dirs:
            dirs.remove(name)
            links = {k: v for k, v in links.items() if not k.startswith(name + "/")}
        dirs.update(change.make_dirs)
        for link, target in change.set_links:
            self.assertTrue("/" not in link or link.split("/")[0] in dirs)
            links[link] = target
        self.assertEqual((links, dirs), (dict(new.links), set(new.dirs)))

    @given(trees)
    def test_nothing_to_do(self, tree: BootTree) -> None:
        """A tree differs from itself in nothing."""
        self.assertFalse(difference(tree, tree))
