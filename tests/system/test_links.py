"""walt-net up and down with the real iproute2, in namespaces."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
from ipaddress import IPv4Interface

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.netns import Namespace, join, short_dir, why_not
from walt.common.errors import Invalid, Unavailable
from walt.common.names import is_mac
from walt.server.adapters.network.links import Links
from walt.server.adapters.network.namespace import inside
from walt.server.adapters.network.plans import LinkPlan
from walt.server.adapters.nftables.firewall import NftFirewall
from walt.server.config.load import parse
from walt.server.runtime.process import ProcessRunner
from walt.server.tools.net_config import bring, guarded_interface, selected

IP = IPv4Interface("192.168.77.1/24")
VIRTUAL = LinkPlan("walt-net", ip=IP)


def seconds() -> float:
    """Return the reactor's time."""
    return float(reactor.seconds())


class LinksTests(TestCase):
    skip = why_not("ip", "nsenter", "setpriv", "nft", "dhclient", "busybox")
    timeout = patient(60)

    def setUp(self) -> None:
        self.ns = Namespace(self)
        self.dir = short_dir(self)
        self.runner = ProcessRunner(reactor, self.ns.launcher)
        self.links = Links(reactor, self.runner, self.dir)

    def shown(self) -> dict[str, dict]:
        text = self.ns.run("ip", "-json", "address", "show")
        return {link["ifname"]: link for link in json.loads(text) if link}

    async def test_virtual_only(self) -> None:
        """A platform without physical interface gets a bridge that is up, with its address."""
        await self.links.up(VIRTUAL)
        shown = self.shown()
        bridge = shown["walt-net"]
        self.assertEqual(bridge["operstate"], "UP")
        self.assertEqual(shown["walt-net-dummy"]["master"], "walt-net")
        (address,) = [a for a in bridge["addr_info"] if a["family"] == "inet"]
        self.assertEqual((address["local"], address["prefixlen"]), ("192.168.77.1", 24))
        self.assertEqual(address["broadcast"], "192.168.77.255")
        mac = (self.dir / ".walt-net.mac").read_text().strip()
        self.assertTrue(is_mac(mac) and mac.startswith("52:54:00:") and mac[9] < "8", mac)
        self.assertEqual(bridge["address"], mac)
        self.assertEqual(
            (self.dir / ".walt-net.state").read_text(), "walt-net-dummy\nwalt-net\n"
        )
        await self.links.up(VIRTUAL)  # what is there is taken over
        self.assertEqual(self.shown()["walt-net"]["ifindex"], bridge["ifindex"])
        await self.links.down(VIRTUAL)
        self.assertEqual(list(self.shown()), ["lo"])
        self.assertFalse((self.dir / ".walt-net.state").exists())
        await self.links.down(VIRTUAL)
        await self.links.up(VIRTUAL)
        self.assertEqual(self.shown()["walt-net"]["address"], mac)

    async def test_changed_address(self) -> None:
        """After a change of server.conf the bridge has the new address alone."""
        await self.links.up(VIRTUAL)
        await self.links.up(LinkPlan("walt-net", ip=IPv4Interface("192.168.78.1/20")))
        addresses = [
            (one["local"], one["prefixlen"]) for one in self.shown()["walt-net"]["addr_info"]
            if one["family"] == "inet"
        ]
        self.assertEqual(addresses, [("192.168.78.1", 20)])

    async def test_physical_interface(self) -> None:
        """The raw device becomes a port of the bridge and survives `down`."""
        other = Namespace(self)
        join(self.ns, "eth9", other, "far")
        plan = LinkPlan("walt-net", "eth9", ip=IP)
        await self.links.up(plan)
        self.assertEqual(self.shown()["eth9"]["master"], "walt-net")
        self.assertEqual((self.dir / ".walt-net.state").read_text(), "walt-net\n")
        await self.links.down(plan)
        self.assertNotIn("master", self.shown()["eth9"])

    def is_up(self, name: str) -> bool:
        """Tell whether an interface is set up."""
        return "UP" in self.shown()[name]["flags"]

    async def test_raw_device_that_was_down(self) -> None:
        """It is down again when no network needs it any more; one that was up stays so."""
        other = Namespace(self)
        for number in (7, 8, 9):
            join(self.ns, f"eth{number}", other, f"far{number}")
        for name in ("eth8", "eth9"):
            self.ns.run("ip", "link", "set", name, "down")
        bridge, admin = LinkPlan("walt-net", "eth9", ip=IP), LinkPlan("walt-adm", "eth9")
        for plan in (bridge, admin, bridge):  # each by another server, as after a crash
            await Links(reactor, self.runner, self.dir).up(plan)
            self.assertTrue(self.is_up("eth9"))
        await self.links.down(bridge)
        self.assertTrue(self.is_up("eth9"), "the other network has lost its interface")
        await self.links.down(admin)
        self.assertFalse(self.is_up("eth9"))
        for name in ("eth8", "eth7", "eth9"):  # server.conf names another one each time
            await Links(reactor, self.runner, self.dir).up(LinkPlan("walt-net", name, ip=IP))
            self.assertTrue(self.is_up(name))
        self.assertEqual([self.is_up(f"eth{number}") for number in (7, 8)], [True, False])
        # Somebody else uses it meanwhile.
        self.ns.run("ip", "address", "add", "10.1.2.3/24", "dev", "eth9")
        await self.links.down(LinkPlan("walt-net", "eth9", ip=IP))
        self.assertTrue(self.is_up("eth9"))
        self.assertFalse((self.dir / ".raised").exists())

    async def test_raw_device_after_a_start_of_the_machine(self) -> None:
        """What another start of the machine found down says nothing about this one."""
        other = Namespace(self)
        join(self.ns, "eth9", other, "far9")
        for text in ("another-boot\neth9\n", "", "\xff\n-x\n"):
            (self.dir / ".raised").write_text(text)
            plan = LinkPlan("walt-net", "eth9", ip=IP)
            await self.links.up(plan)
            await self.links.down(plan)
            self.assertTrue(self.is_up("eth9"))

    async def test_other_network(self) -> None:
        """Another network only gets an alternative name and its address, until `down`."""
        other = Namespace(self)
        join(self.ns, "eth8", other, "far")
        plan = LinkPlan("walt-adm", "eth8", ip=IPv4Interface("10.9.8.7/24"))
        for _ in range(2):
            await self.links.up(plan)
        found = (await self.links.links())["walt-adm"]
        self.assertEqual(found["ifname"], "eth8")
        self.assertIn("10.9.8.7", [a["local"] for a in found["addr_info"]])
        await self.links.down(plan)
        found = await self.links.links()
        self.assertNotIn("walt-adm", found)
        self.assertNotIn("10.9.8.7", [a["local"] for a in found["eth8"]["addr_info"]])

    async def test_dhcp_client(self) -> None:
        """Another network takes its address from a DHCP server, and gives it back."""
        other = Namespace(self)
        join(self.ns, "eth8", other, "far")
        other.run("ip", "address", "add", "10.9.8.1/24", "dev", "far")
        leases = self.dir / "leases"
        leases.touch()
        (self.dir / "udhcpd.conf").write_text(
            f"interface far\nstart 10.9.8.20\nend 10.9.8.20\nlease_file {leases}\n"
            f"pidfile {self.dir}/udhcpd.pid\noption subnet 255.255.255.0\n"
        )
        server = subprocess.Popen(
            other.command("busybox", "udhcpd", "-f", str(self.dir / "udhcpd.conf")),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

        async def end() -> None:
            await deferLater(reactor, 0, lambda: None)  # not in a turn of the server's code
            server.kill()
            server.wait()

        self.addCleanup(end)
        plan = LinkPlan("walt-adm", "eth8", ip="dhcp")
        self.addCleanup(self.links.down, plan)

        async def addresses(wanted: list[str]) -> None:
            end = seconds() + patient(30)
            while True:
                found = (await self.links.links())["eth8"]
                if [a["local"] for a in found["addr_info"] if a["family"] == "inet"] == wanted:
                    return
                self.assertLess(seconds(), end, found)
                await deferLater(reactor, 0.1, lambda: None)

        for _ in range(2):
            await self.links.up(plan)
            await addresses(["10.9.8.20"])
        self.assertIn("walt-adm", await self.links.links())
        await self.links.down(plan)
        await addresses([])
        self.assertNotIn("walt-adm", await self.links.links())

    async def test_other_raw_device(self) -> None:
        """After a change of server.conf the bridge has the new port alone; others are as before."""
        other = Namespace(self)
        join(self.ns, "eth9", other, "far9")
        join(self.ns, "eth8", other, "far8")
        for plan, port in (
            (LinkPlan("walt-net", "eth9", ip=IP), "eth9"),
            (LinkPlan("walt-net", "eth8", ip=IP), "eth8"),
            (VIRTUAL, "walt-net-dummy"), (LinkPlan("walt-net", "eth9", ip=IP), "eth9"),
        ):
            # Each by another server, as after a restart.
            await Links(reactor, self.runner, self.dir).up(plan)
            shown = self.shown()
            ports = [name for name, link in shown.items() if link.get("master") == "walt-net"]
            self.assertEqual(ports, [port], plan)
            self.assertEqual("walt-net-dummy" in shown, plan is VIRTUAL)

    async def test_the_former_vlan(self) -> None:
        """A VLAN that left server.conf leaves the bridge, even if an older server made it."""
        other = Namespace(self)
        join(self.ns, "eth9", other, "far9")
        # This kernel may have no VLANs: another interface has the name.
        join(self.ns, "eth9.12", other, "far12")
        await self.links.up(LinkPlan("walt-net", "eth9", 12, IP))
        self.assertEqual(self.shown()["eth9.12"]["master"], "walt-net")
        (self.dir / ".walt-net.plan").unlink()
        await self.links.up(LinkPlan("walt-net", "eth9", ip=IP))
        shown = self.shown()
        self.assertNotIn("eth9.12", shown)
        self.assertEqual(shown["eth9"]["master"], "walt-net")

    async def test_network_that_is_no_longer_there(self) -> None:
        """A network that left server.conf, or changed there, is undone as it was made."""
        other = Namespace(self)
        join(self.ns, "eth8", other, "far8")
        join(self.ns, "eth9", other, "far9")
        admin = IPv4Interface("10.9.8.7/24")
        await self.links.up(LinkPlan("walt-adm", "eth8", ip=admin))
        await self.links.up(LinkPlan("walt-adm", "eth9", ip=admin))
        shown = self.shown()
        self.assertEqual([one["family"] for one in shown["eth8"]["addr_info"]
                          if one.get("local") == "10.9.8.7"], [])
        self.assertEqual(shown["eth9"]["altnames"], ["walt-adm"])
        config = parse("network:\n  walt-net: {ip: 192.168.77.1/24}\n")
        links = Links(reactor, self.runner, self.dir)
        await bring("up", config, links, NftFirewall(self.runner))
        shown = self.shown()
        self.assertNotIn("altnames", shown["eth9"])
        self.assertNotIn("10.9.8.7", str(shown["eth9"]["addr_info"]))
        self.assertEqual(links.no_longer_wanted(config.networks), [])

    async def test_damaged_memory(self) -> None:
        """What cannot be read is as good as nothing; it never reaches a command."""
        for text in ("", "[]", "{", '{"raw-device": "-x", "vlan": null, "ip": null}',
                     '{"raw-device": 5, "vlan": "1", "ip": "x"}'):
            (self.dir / ".walt-net.plan").write_text(text)
            (self.dir / ".walt-adm.plan").write_text(text)
            await self.links.up(VIRTUAL)
            (gone,) = self.links.no_longer_wanted(["walt-net"])
            self.assertEqual(gone, LinkPlan("walt-adm"))
            await self.links.down(gone)
            self.assertEqual(self.links.no_longer_wanted(["walt-net"]), [])

    async def test_missing_interface(self) -> None:
        """A raw device that never comes is waited for once, then named in the error."""
        clock = Clock()
        links = Links(clock, self.runner, self.dir)
        waiting = Deferred.fromCoroutine(links.up(LinkPlan("walt-net", "nope0", ip=IP)))
        while not clock.getDelayedCalls():
            pause: Deferred[None] = Deferred()
            reactor.callLater(0.05, pause.callback, None)
            await pause
        clock.advance(10)
        error = await self.assertFailure(waiting, Unavailable)
        self.assertIn("nope0", str(error))

    async def test_refused_plans(self) -> None:
        """Plans that cannot work are refused before anything is changed."""
        for plan in (
            LinkPlan("walt-net", vlan=4), LinkPlan("walt-net", "eth0", vlan=5000),
            LinkPlan("walt-net", "-x"), LinkPlan("a-very-long-network"), LinkPlan("x\ny"),
            LinkPlan("walt-net", "a b"),
        ):
            await self.assertFailure(Deferred.fromCoroutine(self.links.up(plan)), Invalid)
        self.assertEqual(list(self.shown()), ["lo"])

    async def test_net_config(self) -> None:
        """`walt-net-config` sets every network up, drops tagged frames, and undoes it all."""
        other = Namespace(self)
        join(self.ns, "eth9", other, "far")
        config = parse(
            "network:\n  walt-net: {raw-device: eth9, ip: 192.168.77.1/24}\n"
            "  walt-adm: {ip: 10.1.1.1/24}\n"
        )
        self.assertEqual([p.name for p in selected(config, None)], ["walt-net", "walt-adm"])
        self.assertEqual([p.name for p in selected(config, "walt-adm")], ["walt-adm"])
        self.assertRaises(Invalid, selected, config, "other")
        self.assertEqual(guarded_interface(config), "eth9")
        firewall = NftFirewall(self.runner)
        await bring("up", config, self.links, firewall)
        with inside(self.ns.path):
            seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            seen.bind(("walt-net", 0))
        with inside(other.path):
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            sender.bind(("far", 0))
        self.addCleanup(seen.close)
        self.addCleanup(sender.close)
        ether = b"\xff" * 6 + bytes.fromhex("020000000099")
        for tag in (struct.pack("!HH", 0x8100, 5), b""):
            sender.send(ether + tag + struct.pack("!H", 0x88B5) + b"tagged " + tag + bytes(60))
        seen.settimeout(5)
        frames = []
        while not frames or b"tagged \0\0\0\0" not in frames[-1]:
            frames.append(seen.recv(2000))
        self.assertFalse([f for f in frames if struct.pack("!HH", 0x8100, 5) in f])
        await bring("down", config, self.links, firewall)
        self.assertEqual(sorted(self.shown()), ["eth9", "lo"])
        self.assertEqual(self.ns.run("nft", "list", "tables"), "")
