"""What every IFirewall, ITaps and IConfigurable does, on fakes and real things."""

from __future__ import annotations

import json
from abc import abstractmethod
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.services import FakeConfigurable, FakeFirewall, FakeTaps
from tests.system.netns import Namespace, short_dir, why_not
from walt.common.errors import Conflict, Invalid
from walt.common.traffic_shaping import Limits
from walt.server.adapters.dhcpd.daemon import DhcpdService
from walt.server.adapters.named.daemon import NamedService
from walt.server.adapters.network.links import LinkPlan, Links
from walt.server.adapters.network.taps import Taps
from walt.server.adapters.nftables.firewall import NftFirewall
from walt.server.adapters.tftpd.daemon import TftpdService
from walt.server.adapters.tftpd.tree import BootTreeStore
from walt.server.domain.network.firewall import FirewallConfig
from walt.server.domain.network.interfaces import IFirewall, ITaps
from walt.server.domain.network_services.boot_tree import BootTree
from walt.server.domain.network_services.dhcp import dhcp_config
from walt.server.domain.network_services.dns import DnsConfig
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.domain.network_services.tftp import TftpConfig
from walt.server.runtime.process import Launcher, ProcessRunner

CONFIG = FirewallConfig(IPv4Network("192.168.77.0/24"), ("192.168.77.20",))


class FirewallContract(Contract):
    """`make` returns an IFirewall, `in_force` the addresses it lets out (None: no rules)."""

    @abstractmethod
    def make(self) -> IFirewall:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    def in_force(self, firewall: Any) -> list[str] | None:
        """Given by each implementation; the class tells what."""

    async def test_life(self) -> None:
        """Applying, applying again, changing and removing, twice."""
        firewall = self.make()
        verifyObject(IFirewall, firewall)
        self.assertIsNone(self.in_force(firewall))
        for _ in range(2):
            await firewall.apply(CONFIG)
            self.assertEqual(self.in_force(firewall), ["192.168.77.20"])
        await firewall.apply(FirewallConfig(CONFIG.subnet))
        self.assertEqual(self.in_force(firewall), [])
        for _ in range(2):
            await firewall.remove()
            self.assertIsNone(self.in_force(firewall))


class FakeFirewallTests(FirewallContract, TestCase):
    def make(self) -> FakeFirewall:
        return FakeFirewall()

    def in_force(self, firewall: Any) -> list[str] | None:
        return list(firewall.config.nat) if firewall.config is not None else None


class NftFirewallTests(FirewallContract, TestCase):
    skip = why_not("nft", "ip", "nsenter", "setpriv")

    def make(self) -> NftFirewall:
        self.ns = Namespace(self)
        forward = short_dir(self) / "ip_forward"
        forward.write_text("1\n")
        return NftFirewall(ProcessRunner(reactor, self.ns.launcher), forward)

    def in_force(self, firewall: Any) -> list[str] | None:
        rules = self.ns.run("nft", "list", "ruleset")
        if not rules.strip():
            return None
        return [CONFIG.nat[0]] if CONFIG.nat[0] in rules else []


class TapsContract(Contract):
    """`make` returns an ITaps, `names` the taps that exist and their networks."""

    @abstractmethod
    async def make(self) -> ITaps:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    def names(self, taps: Any) -> dict[str, str]:
        """Given by each implementation; the class tells what."""

    async def test_life(self) -> None:
        """Creating and deleting may be repeated."""
        taps = await self.make()
        verifyObject(ITaps, taps)
        for _ in range(2):
            await taps.create_tap("tap-a", "walt-net")
        await taps.create_tap("tap-b", "home-net")
        self.assertEqual(self.names(taps), {"tap-a": "walt-net", "tap-b": "home-net"})
        for _ in range(2):
            await taps.delete_taps(["tap-a"])
        self.assertEqual(self.names(taps), {"tap-b": "home-net"})
        await taps.delete_taps(["tap-a", "tap-b"])
        self.assertEqual(self.names(taps), {})

    async def test_names(self) -> None:
        """Names that the kernel refuses, or that something else has, are refused."""
        taps = await self.make()
        for name in ("-all", "x y", "a" * 16, ""):
            for words in ((name, "walt-net"), ("tap-a", name)):
                await self.assertFailure(Deferred.fromCoroutine(taps.create_tap(*words)), Invalid)
        await self.assertFailure(
            Deferred.fromCoroutine(taps.create_tap("tap-a", "lo")), Conflict
        )
        self.assertEqual(self.names(taps), {})


class FakeTapsTests(TapsContract, TestCase):
    async def make(self) -> FakeTaps:
        return FakeTaps()

    def names(self, taps: Any) -> dict[str, str]:
        return dict(taps.taps)


class RealTapsTests(TapsContract, TestCase):
    skip = why_not("ip", "nsenter", "setpriv")

    async def make(self) -> Taps:
        self.ns = Namespace(self)
        self.runner = ProcessRunner(reactor, self.ns.launcher)
        links = Links(reactor, self.runner, short_dir(self))
        await links.up(LinkPlan("walt-net", ip=IPv4Interface("192.168.77.1/24")))
        return Taps(self.runner)

    def names(self, taps: Any) -> dict[str, str]:
        shown = json.loads(self.ns.run("ip", "-json", "link", "show", "type", "tun"))
        return {one["ifname"]: one["master"] for one in shown if one}

    def bridges(self) -> set[str]:
        """Return the names of the bridges."""
        shown = json.loads(self.ns.run("ip", "-json", "link", "show", "type", "bridge"))
        return {one["ifname"] for one in shown if one}

    async def test_given_up(self) -> None:
        """Who gives up a creation, at any moment, leaves nothing that cannot be deleted."""
        taps = await self.make()
        for step in range(8):
            creating = Deferred.fromCoroutine(taps.create_tap("tap-a", "home-net"))
            await deferLater(reactor, step * 0.01, lambda: None)
            if not creating.called:
                creating.cancel()
                await self.assertFailure(creating, CancelledError)
            await taps.delete_taps(["tap-a"])
            self.assertEqual(self.names(taps), {})
            self.assertEqual(self.bridges(), {"walt-net"})

    async def test_networks_live_as_long_as_they_have_taps(self) -> None:
        """A secondary network goes with its last tap; bridges of others stay."""
        taps = await self.make()
        self.ns.run("ip", "link", "add", "office", "type", "bridge")
        await self.assertFailure(Deferred.fromCoroutine(taps.create_tap("t0", "office")), Conflict)
        await taps.create_tap("t1", "home-net")
        await taps.create_tap("t2", "home-net")
        await taps.delete_taps(["t1"])
        self.assertEqual(self.bridges(), {"walt-net", "office", "home-net"})
        await taps.delete_taps(["t2"])
        self.assertEqual(self.bridges(), {"walt-net", "office"})

    async def test_left_overs(self) -> None:
        """What a killed server left is found again by another one and removed."""
        taps = await self.make()
        await taps.create_tap("t1", "home-net")
        await taps.create_tap("t2", "walt-net")
        self.ns.run("ip", "tuntap", "add", "dev", "foreign", "mode", "tap")
        await Taps(self.runner).delete_left_overs()
        shown = self.ns.run("ip", "-brief", "link", "show", "type", "tun")
        self.assertEqual([line.split()[0] for line in shown.splitlines()], ["foreign"])
        self.assertEqual(self.bridges(), {"walt-net"})

    async def test_shaping(self) -> None:
        """A tap is limited as told, or left as it was by a kernel that cannot."""
        taps = await self.make()
        await taps.create_tap("t1", "home-net")
        before = self.shown("t1")
        netem, tbf = self.kernel_has("netem", "delay", "1ms"), self.kernel_has(
            "tbf", "rate", "1mbit", "burst", "10kb", "latency", "1ms"
        )
        self.assertTrue(tbf, "Debian's kernels have it, and so has any that tests run on")
        for limits, possible, shown in (
            (Limits(0, 10**8), tbf, [r"tbf .*rate 100Mbit"]),
            (Limits(8000, 0), netem, [r"netem .*delay \d"]),
            (Limits(8000, 10**8), netem and tbf, [r"netem .*delay \d", r"tbf .*rate 100Mbit"]),
        ):
            self.assertEqual(await taps.shape("t1", limits), possible, limits)
            if not possible:
                self.assertEqual(self.shown("t1"), before)
                continue
            for text in shown:
                self.assertRegex(self.shown("t1"), text)
            self.ns.run("tc", "qdisc", "del", "dev", "t1", "root")

    def shown(self, device: str) -> str:
        """Return the queueing disciplines of a device."""
        return self.ns.run("tc", "qdisc", "show", "dev", device)

    def kernel_has(self, *words: str) -> bool:
        """Tell whether the kernel knows a queueing discipline, by using it elsewhere."""
        try:
            self.ns.run("tc", "qdisc", "add", "dev", "walt-net", "root", *words)
        except AssertionError as error:
            self.assertIn("qdisc kind is unknown", str(error))
            return False
        self.ns.run("tc", "qdisc", "del", "dev", "walt-net", "root")
        return True


class ConfigurableTests(TestCase):
    """Before it is started, a service only remembers what it is told."""

    def test_every_configurable(self) -> None:
        """The port is provided; apply fires at once, for an equal value too."""
        directory, launcher = short_dir(self), Launcher()
        places = {"directory": directory / "s", "runtime": directory / "r"}
        interface = IPv4Interface("192.168.77.1/24")
        dhcpd = DhcpdService(reactor, launcher, **places)
        cases: list[tuple[Any, Any]] = [
            (FakeConfigurable(), 1),
            (dhcpd, dhcp_config(interface, [])),
            (NamedService(reactor, launcher, **places), DnsConfig(interface.ip)),
            (TftpdService(reactor, launcher, **places), TftpConfig(interface.ip, Path("/x"))),
        ]
        for service, config in cases:
            verifyObject(IConfigurable, service)
            for _ in range(2):
                self.successResultOf(service.apply(config))
        self.assertEqual(list(directory.iterdir()), [])

    async def test_tree(self) -> None:
        """The tree follows at once, and again when told the same."""
        root = short_dir(self) / "nodes"
        store = BootTreeStore(reactor, ProcessRunner(reactor), root)
        verifyObject(IConfigurable, store)
        for _ in range(2):
            done: Deferred[None] = store.apply(BootTree(links={"a": "b"}))
            await done
        self.assertTrue((root / "a").is_symlink())
