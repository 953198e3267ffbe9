"""What every IFirewall, ITaps and IConfigurable does, on fakes and real things."""

from __future__ import annotations

from abc import abstractmethod
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.fakes.services import FakeConfigurable, FakeFirewall, FakeTaps
from tests.system.netns import Namespace, short_dir, why_not
from walt.server.adapters.dhcpd.service import DhcpdService
from walt.server.adapters.named.service import NamedService
from walt.server.adapters.network.links import LinkPlan, Links
from walt.server.adapters.nftables.firewall import NftFirewall
from walt.server.adapters.tftpd.service import TftpdService
from walt.server.adapters.tftpd.tree import BootTreeStore
from walt.server.domain.network.firewall import FirewallConfig
from walt.server.domain.network.ports import IFirewall, ITaps
from walt.server.domain.services.boot_tree import BootTree
from walt.server.domain.services.dhcp import dhcp_config
from walt.server.domain.services.dns import DnsConfig
from walt.server.domain.services.ports import IConfigurable
from walt.server.domain.services.tftp import TftpConfig
from walt.server.runtime.process import Launcher, ProcessRunner

CONFIG = FirewallConfig(IPv4Network("192.168.77.0/24"), ("192.168.77.20",))


class FirewallContract:
    """`make` returns an IFirewall, `in_force` the addresses it lets out (None: no rules)."""

    @abstractmethod
    def make(self) -> Any:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    def in_force(self, firewall: Any) -> list[str] | None:
        """Given by each implementation; the class tells what."""

    async def test_life(self) -> None:
        """Applying, applying again, changing and removing, twice."""
        case: Any = self
        firewall = self.make()
        verifyObject(IFirewall, firewall)
        case.assertIsNone(self.in_force(firewall))
        for _ in range(2):
            await firewall.apply(CONFIG)
            case.assertEqual(self.in_force(firewall), ["192.168.77.20"])
        await firewall.apply(FirewallConfig(CONFIG.subnet))
        case.assertEqual(self.in_force(firewall), [])
        for _ in range(2):
            await firewall.remove()
            case.assertIsNone(self.in_force(firewall))


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


class TapsContract:
    """`make` returns an ITaps, `names` the taps that exist."""

    @abstractmethod
    async def make(self) -> Any:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    def names(self, taps: Any) -> set[str]:
        """Given by each implementation; the class tells what."""

    async def test_life(self) -> None:
        """Creating and deleting may be repeated."""
        case: Any = self
        taps = await self.make()
        verifyObject(ITaps, taps)
        for _ in range(2):
            await taps.create_tap("tap-a")
        await taps.create_tap("tap-b")
        case.assertEqual(self.names(taps), {"tap-a", "tap-b"})
        for _ in range(2):
            await taps.delete_tap("tap-a")
        case.assertEqual(self.names(taps), {"tap-b"})


class FakeTapsTests(TapsContract, TestCase):
    async def make(self) -> FakeTaps:
        return FakeTaps()

    def names(self, taps: Any) -> set[str]:
        return set(taps.names)


class RealTapsTests(TapsContract, TestCase):
    skip = why_not("ip", "nsenter", "setpriv")

    async def make(self) -> Links:
        self.ns = Namespace(self)
        links = Links(reactor, ProcessRunner(reactor, self.ns.launcher), short_dir(self))
        await links.up(LinkPlan("walt-net", ip=IPv4Interface("192.168.77.1/24")))
        return links

    def names(self, taps: Any) -> set[str]:
        shown = self.ns.run("ip", "-brief", "link", "show", "type", "tun")
        return {line.split()[0] for line in shown.splitlines()}


class ConfigurableTests(TestCase):
    """Before it is started, a service only remembers what it is told."""

    def test_every_configurable(self) -> None:
        """The port is provided; apply fires at once, for an equal value too."""
        directory, launcher = short_dir(self), Launcher()
        places = {"directory": directory / "s", "runtime": directory / "r"}
        interface = IPv4Interface("192.168.77.1/24")
        dhcpd = DhcpdService(reactor, launcher, on_lease=lambda event: None, **places)
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
