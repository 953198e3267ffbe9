from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.services import FakeConfigurable, FakeFirewall
from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.dhcp import render
from walt.server.domain.network_services.publishing import NetworkServices

INTERFACE = IPv4Interface("192.168.1.1/24")
NODE = Device(
    "02:00:00:00:00:05", "node-5", "node", "192.168.1.5", model="pc-x86-64",
    image="joe/img:latest", conf={"netsetup": 1},
)


class NetworkServicesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.dhcp, self.dns, self.tree = (FakeConfigurable() for _ in range(3))
        self.firewall = FakeFirewall()
        self.services = NetworkServices(
            self.clock, INTERFACE, dhcp=self.dhcp, dns=self.dns, tree=self.tree,
            firewall=self.firewall, forwarders=("10.0.0.1",), guarded="eth0",
        )

    def go(self) -> None:
        self.clock.pump([0.05, 0.01, 0.01, 0.01])

    def test_devices(self) -> None:
        """Devices reach every service, and the answer comes when all are in force."""
        self.dhcp.result = Deferred()
        restart = self.dhcp.result
        done = self.services.update(devices=[NODE], mounts={})
        self.go()
        self.assertEqual(self.dhcp.configs[0].hosts[0].name, "node-5")
        (network,) = self.dns.configs[0].networks
        self.assertEqual(network.names, (("node-5", "192.168.1.5"),))
        self.assertEqual(self.dns.configs[0].forwarders, ("10.0.0.1",))
        self.assertIn("node-5", self.tree.configs[0].whole.links)
        assert self.firewall.config is not None
        self.assertEqual(self.firewall.config.nat, ("192.168.1.5",))
        self.assertEqual(self.firewall.config.guarded, "eth0")
        self.assertNoResult(done)
        restart.callback(None)
        self.successResultOf(done)

    def test_port_of_boot_files(self) -> None:
        """Firmware that boots by HTTP is told the port of the server's pages, unless it is 80."""
        for port, named in ((80, ""), (8080, ":8080")):
            self.dhcp.configs.clear()
            NetworkServices(
                self.clock, INTERFACE, dhcp=self.dhcp, dns=self.dns, tree=self.tree,
                firewall=self.firewall, http_port=port,
            ).update(devices=[NODE], mounts={})
            self.go()
            self.assertIn(
                f'filename "http://192.168.1.1{named}/pxe/walt-x86-64-snponly.efi";',
                render(self.dhcp.configs[0]),
            )

    def test_offers_in_a_wide_network(self) -> None:
        """An address that a Raspberry Pi is offered leads to files at once; that alone changes."""
        self.services = NetworkServices(
            self.clock, IPv4Interface("10.0.0.1/16"), dhcp=self.dhcp, dns=self.dns,
            tree=self.tree, firewall=self.firewall,
        )
        self.services.offered("b8:27:eb:00:00:01", "10.0.9.1")  # nothing is known yet
        self.services.update(devices=[], mounts={})
        self.go()
        self.assertEqual(self.tree.configs[-1].whole.links["10.0.9.1"], "probing")
        before = len(self.tree.configs)
        for mac, ip in (("b8:27:eb:00:00:02", "10.0.9.2"), ("b8:27:eb:00:00:03", "10.0.9.3"),
                        ("b8:27:eb:00:00:02", "10.0.9.2"), ("52:54:00:00:00:01", "10.0.9.4")):
            self.services.offered(mac, ip)
        self.go()
        self.assertEqual(len(self.tree.configs), before + 1)
        self.assertEqual(len(self.dhcp.configs), 1)
        links = self.tree.configs[-1].whole.links
        self.assertEqual(
            {ip for ip, target in links.items() if target == "probing"},
            {"10.0.9.1", "10.0.9.2", "10.0.9.3"},
        )
        self.services.offered("b8:27:eb:00:00:05", "10.0.9.5")
        self.services.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_mounts_concern_the_tree_alone(self) -> None:
        """A mount changes links, nothing else."""
        self.services.update(devices=[NODE])
        self.go()
        self.successResultOf_after(self.services.update(mounts={"joe/img:latest": "ab" * 32}))
        self.assertIn("02:00:00:00:00:05/fs", self.tree.configs[-1].whole.links)
        self.assertEqual(len(self.dhcp.configs), 1)

    def successResultOf_after(self, done: Deferred[None]) -> None:
        self.clock.pump([0.05] * 4)
        self.successResultOf(done)

    def test_tree_waits_for_the_mounts(self) -> None:
        """After a restart nothing is taken from nodes before the mounted images are known."""
        self.services.update(devices=[NODE])
        self.go()
        self.assertEqual(self.tree.configs, [])
        self.services.update_links({"joe/img:latest": "ab" * 32})
        self.assertIn("02:00:00:00:00:05/fs", self.tree.configs[0].whole.links)

    def test_changes_of_devices(self) -> None:
        """What is told of a few devices is the same as a look at all."""
        other = replace(NODE, mac="02:00:00:00:00:06", name="node-6", ip="192.168.1.6")
        self.services.update(devices=[NODE], mounts={})
        self.go()
        for old, new, names in (
            (None, other, ["node-5", "node-6"]), (NODE, None, ["node-6"]),
            (other, replace(other, name="node-7"), ["node-7"]), (None, NODE, ["node-5", "node-7"]),
        ):
            done = self.services.update(changes=[Change(old, new)])
            self.clock.pump([0.05] * 8)
            self.successResultOf(done)
            self.assertEqual([host.name for host in self.dhcp.configs[-1].hosts], names)
            self.assertEqual(
                {name for name in self.tree.configs[-1].whole.links if name.startswith("node-")},
                set(names),
            )

    def test_updates_are_merged(self) -> None:
        """Many updates within a moment derive everything once."""
        waits = [self.services.update(devices=[NODE]) for _ in range(100)]
        self.go()
        for one in waits:
            self.successResultOf(one)
        self.assertEqual(len(self.dhcp.configs), 1)

    def test_update_during_derivation(self) -> None:
        """An update that comes between two turns is not lost."""
        self.services.update(devices=[NODE])
        self.clock.advance(0.05)
        late = self.services.update(devices=[])
        self.assertNoResult(late)
        self.clock.pump([0.05] * 8)
        self.successResultOf(late)
        self.assertEqual(self.dhcp.configs[-1].hosts, ())

    def test_a_failing_service_keeps_the_others(self) -> None:
        """A failure is logged, the answer comes all the same."""
        self.dns.result = fail(OSError(28, "No space left on device"))
        done = self.services.update(devices=[NODE], mounts={})
        self.go()
        self.successResultOf(done)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(len(self.tree.configs), 1)

    def test_links_to_static(self) -> None:
        """At an orderly stop nodes find the looping files, whatever comes later."""
        self.services.update(devices=[NODE], mounts={"joe/img:latest": "ab" * 32})
        self.go()
        self.successResultOf(self.services.links_to_static())
        link = "02:00:00:00:00:05/tftp"
        self.assertEqual(self.tree.configs[-1].whole.links[link], "../../tftp-static")
        self.services.update(mounts={"joe/img:latest": "cd" * 32})
        self.clock.pump([0.05] * 8)
        self.assertEqual(self.tree.configs[-1].whole.links[link], "../../tftp-static")

    def test_stop_leaves_nothing(self) -> None:
        """After stop no call is scheduled and nobody waits."""
        done = self.services.update(devices=[NODE])
        self.services.stop()
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])
