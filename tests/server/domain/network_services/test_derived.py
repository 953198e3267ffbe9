"""What is kept and derived again after changes is what a derivation from nothing gives."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.devices.derived import Followed
from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.boot_tree import (
    BootLinks,
    BootTree,
    JoinedTree,
    LastChanges,
    boot_tree,
    changes,
    difference,
)
from walt.server.domain.network_services.dhcp import (
    DhcpHost,
    DhcpHosts,
    dhcp_config,
    only_calm_changes,
)
from walt.server.domain.network_services.dns import DnsNames, dns_config

MACS = [*(f"aa:bb:cc:00:00:0{n}" for n in range(4)), "b8:27:eb:00:00:01"]
NAMES = ["ann", "bob", "ann-vpn", "aa-bb-cc-00-00-01", "probing", "walt-server", "no name"]
ADDRESSES = [*(f"192.168.1.{n}" for n in (1, 2, 3, 20)), "10.0.0.1", None]
IMAGES = ["joe/one:latest", "joe/two:latest", "waltplatform/pc-x86-64-default:latest", None]
IDS = {"joe/one:latest": "ab" * 32, IMAGES[2]: "cd" * 32}

devices = st.builds(
    Device, mac=st.sampled_from(MACS), name=st.sampled_from(NAMES),
    type=st.sampled_from(["node", "switch", "unknown", "server"]),
    ip=st.sampled_from(ADDRESSES),
    conf=st.sampled_from([{}, {"netsetup": 1}, {"mount.persist": False}]),
    model=st.sampled_from(["pc-x86-64", None]), image=st.sampled_from(IMAGES),
    vpn_mac=st.sampled_from([None, "52:54:00:00:00:05"]),
)
mounts = st.sets(st.sampled_from(sorted(one for one in IDS if one))).map(
    lambda images: {image: IDS[image] for image in images}
)
# Each step replaces a device, or removes the one of its MAC.
steps = st.lists(st.tuples(devices, st.booleans(), mounts, st.booleans()), min_size=1, max_size=12)


def platforms(
    changed: list[tuple[Device, bool, dict[str, str], bool]]
) -> list[tuple[list[Device], dict[str, str], bool]]:
    """Return the devices after each step: names and addresses are unique, as in the registry."""
    present: dict[str, Device] = {}
    found = []
    for device, gone, mounted, stopping in changed:
        others = [one for one in present.values() if one.mac != device.mac]
        present.pop(device.mac, None)
        if not gone and device.name not in {one.name for one in others}:
            if device.ip in {one.ip for one in others}:
                device = replace(device, ip=None)
            present[device.mac] = device
        found.append((list(present.values()), mounted, stopping))
    return found


class DerivedTests(SynchronousTestCase):
    @given(steps, st.sampled_from(["192.168.1.1/24", "192.168.1.1/19"]))
    def test_after_any_changes(
        self, changed: list[tuple[Device, bool, dict[str, str], bool]], net: str
    ) -> None:
        """DHCP, DNS and the boot tree are those of a full derivation after each step."""
        interface = IPv4Interface(net)
        hosts, links = DhcpHosts(interface), BootLinks(interface)
        names = DnsNames(interface.ip, interface.network)
        before, dhcp = links.tree({}), dhcp_config(interface, [])
        first = before
        followed, told = Followed(), Followed()
        for present, mounted, stopping in platforms(changed):
            changed_devices = followed.look(present)
            told.note(changed_devices[::2])
            told.note(changed_devices)
            noted = told.noted()
            self.assertCountEqual(noted, changed_devices)
            self.assertEqual(noted, sorted(noted, key=lambda change: change.new is not None))
            for one in (hosts, links, names):
                one.change(changed_devices)  # type: ignore[attr-defined]
            old, dhcp = dhcp, hosts.config()
            self.assertEqual(dhcp, dhcp_config(interface, present))
            self.assertEqual(only_calm_changes(old, dhcp), self.calm(old.hosts, dhcp.hosts))
            self.assertEqual(
                names.config(), dns_config(interface.ip, interface.network, present)
            )
            tree = links.tree(mounted, stopping=stopping)
            whole = boot_tree(interface, present, mounted, stopping=stopping)
            self.assertEqual(tree.whole, whole)
            self.assertEqual(changes(before, tree), difference(before.whole, whole))
            for earlier in (first, BootTree()):
                started = earlier.whole if isinstance(earlier, JoinedTree) else earlier
                self.assertEqual(changes(earlier, tree), difference(started, whole))
            self.assertEqual(changes(tree, first), difference(whole, first.whole))
            before = tree

    def test_what_changed_alone_is_compared(self) -> None:
        """A tree that follows another one is compared by what changed in between."""
        found = LastChanges()
        for name in ("a", "b", "c"):
            found.note(name)
        moment = found.number
        self.assertEqual(found.after(moment), [])
        for name in ("b", "d", "b"):
            found.note(name)
        self.assertEqual(found.after(moment), ["b", "d"])
        self.assertEqual(found.after(0), ["b", "d", "c", "a"])

    @staticmethod
    def calm(old: tuple[DhcpHost, ...], new: tuple[DhcpHost, ...]) -> bool:
        """Tell whether devices that are no nodes came, and nothing else happened."""
        return set(old) <= set(new) and all(
            host.type != "node" and not host.nat for host in set(new) - set(old)
        )
