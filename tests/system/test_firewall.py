"""The real nft and real traffic between a node, the server and the outside."""

from __future__ import annotations

import os
import sys
from ipaddress import IPv4Network

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessValue
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.netns import Namespace, join, short_dir, why_not
from walt.common.errors import CommandFailed
from walt.server.adapters.nftables.firewall import NftFirewall
from walt.server.domain.network.firewall import FirewallConfig
from walt.server.runtime.process import ProcessRunner

SUBNET = IPv4Network("192.168.77.0/24")
ASK = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind((sys.argv[1], 0))
for _ in range(int(sys.argv[2])):
    one.sendto(b"\\0\\1x\\0octet\\0", ("192.168.77.1", 69))
"""
# After our own filter: what gets through to the daemon.
COUNT = """
table ip count {
    counter from-20 { }
    counter from-21 { }
    chain input {
        type filter hook input priority filter + 10; policy accept;
        udp dport 69 ip saddr 192.168.77.20 counter name "from-20"
        udp dport 69 ip saddr 192.168.77.21 counter name "from-21"
    }
}
"""


class FirewallTests(TestCase):
    skip = why_not("nft", "ip", "nsenter", "setpriv", "busybox")
    timeout = patient(60)

    def setUp(self) -> None:
        self.server, self.node, self.outside = (Namespace(self) for _ in range(3))
        self.server.run("ip", "link", "add", "walt-net", "type", "bridge")
        join(self.server, "port0", self.node, "eth0")
        join(self.server, "out0", self.outside, "eth0")
        for words in (
            "link set port0 master walt-net", "link set walt-net up",
            "address add 192.168.77.1/24 dev walt-net", "address add 10.5.0.1/24 dev out0",
        ):
            self.server.run("ip", *words.split())
        for last in (20, 21):
            self.node.run("ip", "address", "add", f"192.168.77.{last}/24", "dev", "eth0")
        self.node.run("ip", "route", "add", "default", "via", "192.168.77.1")
        # The outside knows no route to walt-net: only masqueraded packets are answered.
        self.outside.run("ip", "address", "add", "10.5.0.2/24", "dev", "eth0")
        runner = ProcessRunner(reactor, self.server.launcher)
        # The file the test can write is not the one of the namespace: routing is set by hand.
        self.forward = short_dir(self) / "ip_forward"
        self.forward.write_text("0\n")
        self.server.run("busybox", "sysctl", "-w", "net.ipv4.ip_forward=1")
        self.firewall = NftFirewall(runner, self.forward)

    async def ping(self, source: str) -> bool:
        argv = self.node.command(
            "busybox", "ping", "-c", "1", "-W", "1", "-I", source, "10.5.0.2"
        )
        return await getProcessValue(argv[0], argv[1:], os.environ) == 0

    async def test_lan_and_nat(self) -> None:
        """Only NAT devices reach the outside; a change takes effect at once."""
        await self.firewall.apply(FirewallConfig(SUBNET))
        self.assertFalse(await self.ping("192.168.77.20"))
        self.assertEqual(self.forward.read_text(), "0\n")
        await self.firewall.apply(FirewallConfig(SUBNET, ("192.168.77.20",)))
        self.assertEqual(self.forward.read_text(), "1\n")
        self.assertTrue(await self.ping("192.168.77.20"))
        self.assertFalse(await self.ping("192.168.77.21"))
        await self.firewall.apply(FirewallConfig(SUBNET))
        self.assertFalse(await self.ping("192.168.77.20"))

    async def test_remove_undoes_everything(self) -> None:
        """Tables of others stay; removing may be repeated; a left-over is replaced."""
        self.server.run("nft", "add", "table", "ip", "other")
        config = FirewallConfig(SUBNET, ("192.168.77.20",), "port0")
        await self.firewall.apply(config)
        again = NftFirewall(ProcessRunner(reactor, self.server.launcher), self.forward)
        await again.apply(config)  # as after a crash
        listed = self.server.run("nft", "list", "ruleset")
        self.assertEqual(listed.count("masquerade"), 1)
        self.assertEqual(listed.count("8021q"), 1)
        for _ in range(2):
            await again.remove()
        self.assertEqual(self.server.run("nft", "list", "tables"), "table ip other\n")

    async def test_requests_by_tftp_are_bounded(self) -> None:
        """A node that asks without end is not heard any more; another one is."""
        await self.firewall.apply(FirewallConfig(SUBNET))

        def asks(source: str, count: int) -> None:
            self.node.run(sys.executable, "-c", ASK, source, str(count))

        self.server.run("nft", "-f", "-", stdin=COUNT)
        asks("192.168.77.20", 3000)
        asks("192.168.77.21", 30)
        for source, least, most in (("20", 150, 600), ("21", 30, 30)):
            listed = self.server.run("nft", "list", "counter", "ip", "count", f"from-{source}")
            packets = int(listed.split("packets ")[1].split()[0])
            self.assertTrue(least <= packets <= most, listed)

    async def test_refused_change_keeps_the_rules(self) -> None:
        """A transaction that nft refuses changes nothing."""
        await self.firewall.apply(FirewallConfig(SUBNET, ("192.168.77.20",)))
        before = self.server.run("nft", "list", "ruleset")
        bad = FirewallConfig(SUBNET, ("not-an-address!",))
        await self.assertFailure(Deferred.fromCoroutine(self.firewall.apply(bad)), CommandFailed)
        self.assertEqual(self.server.run("nft", "list", "ruleset"), before)
