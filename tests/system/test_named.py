"""The real named with the configuration and zones we generate, asked by dig."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutput
from twisted.names import dns
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.hanging import SHORT, stop_and_come_back, until
from tests.system.netns import Namespace, join, short_dir, why_not
from walt.server.adapters.named.daemon import NamedService
from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.dns import (
    DnsConfig,
    NamesOf,
    dns_config,
    forwarders,
)

SERVER = IPv4Address("192.168.77.1")
SUBNET = IPv4Network("192.168.76.0/23")
DEVICES = [
    Device("02:00:00:00:00:01", "node-1", "node", "192.168.77.20"),
    Device("02:00:00:00:00:02", "Switch-2", "switch", "192.168.76.5"),
    Device("02:00:00:00:00:03", "outside", "unknown", "10.0.0.3"),
]


class Upstream(DatagramProtocol):
    """A DNS server for which all names have one address."""

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Answer a question."""
        message = dns.Message()
        message.fromStr(datagram)
        (query,) = message.queries
        message.answer, message.recAv, message.additional = 1, 1, []
        if query.type == dns.A:
            message.answers = [
                dns.RRHeader(query.name.name, dns.A, ttl=60, payload=dns.Record_A("203.0.113.77"))
            ]
        self.transport.write(message.toStr(), addr)


class NamedTests(TestCase):
    skip = why_not("named", "dig", "ip", "nsenter", "setpriv")
    timeout = patient(90)

    async def setUp(self) -> None:
        self.server = Namespace(self)
        self.server.run("ip", "link", "add", "walt-net", "type", "bridge")
        self.server.run("ip", "link", "set", "walt-net", "up")
        self.server.run("ip", "address", "add", f"{SERVER}/23", "dev", "walt-net")
        self.dir = short_dir(self)
        self.service = NamedService(
            reactor, self.server.launcher, directory=self.dir / "services" / "named",
            runtime=self.dir / "run", place=self.server.inside, patience=SHORT,
        )
        (self.dir / "services" / "named").mkdir(parents=True)
        (self.dir / "services" / "named" / "walt.9.9.9.in-addr.arpa.reverse.zone").touch()
        self.service.startService()
        self.addCleanup(self.service.stopService)
        await self.service.apply(dns_config(SERVER, SUBNET, DEVICES, (str(SERVER),)))

    async def dig(self, *words: str) -> str:
        """Return the short answer, asking again while the server is starting."""
        argv = self.server.command(
            "dig", "+short", "+time=1", "+tries=1", f"@{SERVER}", *words
        )
        for _ in range(40):
            text = (await getProcessOutput(argv[0], argv[1:], os.environ, errortoo=True)).decode()
            if "no servers could be reached" not in text and "failed" not in text:
                return text.strip()
            await deferLater(reactor, 0.25, lambda: None)
        raise AssertionError(text)

    async def test_zones(self) -> None:
        """Names, addresses, the alias of the server and both reverse zones answer."""
        self.assertEqual(await self.dig("node-1.walt"), "192.168.77.20")
        self.assertEqual(await self.dig("switch-2.walt"), "192.168.76.5")
        self.assertEqual(await self.dig("walt-server.walt"), f"server.walt.\n{SERVER}")
        self.assertEqual(await self.dig("-x", "192.168.77.20"), "node-1.walt.")
        self.assertEqual(await self.dig("-x", "192.168.76.5"), "Switch-2.walt.")
        self.assertEqual(await self.dig("-x", str(SERVER)), "server.walt.")
        self.assertEqual(await self.dig("outside.walt"), "")
        self.assertEqual(await self.dig("localhost"), "127.0.0.1")
        self.assertEqual(await self.dig("-x", "127.0.0.1"), "localhost.")
        directory = self.dir / "services" / "named"
        self.assertFalse((directory / "walt.9.9.9.in-addr.arpa.reverse.zone").exists())

    async def test_other_names_are_forwarded(self) -> None:
        """What is no name of ours is asked of the server of resolv.conf, and kept."""
        other = Namespace(self)
        join(self.server, "eth1", other, "far")
        self.server.run("ip", "address", "add", "203.0.113.2/24", "dev", "eth1")
        other.run("ip", "address", "add", "203.0.113.1/24", "dev", "far")
        with other.inside():
            upstream = reactor.listenUDP(53, Upstream(), interface="203.0.113.1")
        self.addCleanup(upstream.stopListening)
        found = forwarders(
            "nameserver 127.0.0.53\nnameserver 203.0.113.1\n", SERVER, upstream="", isolated=False
        )
        self.assertEqual(found, ("203.0.113.1",))
        await self.service.apply(dns_config(SERVER, SUBNET, DEVICES, found))
        self.assertEqual(await self.dig("mirror.example"), "203.0.113.77")
        self.assertEqual(await self.dig("node-1.walt"), "192.168.77.20")

    async def test_transfer(self) -> None:
        """Nobody gets a whole zone: the list of all devices."""
        await self.dig("node-1.walt")
        argv = self.server.command("dig", "+time=5", f"@{SERVER}", "walt", "AXFR")
        text = (await getProcessOutput(argv[0], argv[1:], os.environ, errortoo=True)).decode()
        self.assertIn("Transfer failed", text)
        self.assertNotIn("node-1", text)

    async def test_change_reloads(self) -> None:
        """A change is in force when apply fires, without a restart; no change writes nothing."""
        await self.dig("node-1.walt")
        pid = self.service.child.pid
        zone = self.dir / "services" / "named" / "walt.forward.zone"
        for number in range(3):
            now = [*DEVICES, Device("02:00:00:00:00:09", f"n-{number}", "node", "192.168.77.30")]
            await self.service.apply(dns_config(SERVER, SUBNET, now, (str(SERVER),)))
            self.assertEqual(await self.dig(f"n-{number}.walt"), "192.168.77.30")
        self.assertEqual(await self.dig("n-0.walt"), "")
        written = zone.stat().st_mtime_ns
        await self.service.apply(dns_config(SERVER, SUBNET, now, ("192.168.77.2",)))
        self.assertEqual(zone.stat().st_mtime_ns, written)
        self.assertEqual(self.service.child.pid, pid)

    async def test_many_changes_at_once(self) -> None:
        """A burst of changes is merged, and all who wait are released."""
        waits = []
        for number in range(20):
            now = [Device("02:00:00:00:00:09", f"m-{number}", "node", "192.168.77.40")]
            waits.append(self.service.apply(dns_config(SERVER, SUBNET, now, (str(SERVER),))))
        for wait in waits:
            await wait
        self.assertEqual(await self.dig("m-19.walt"), "192.168.77.40")

    async def test_stopped_process(self) -> None:
        """A named that hangs is noticed and replaced by one that answers."""
        await stop_and_come_back(self.service)
        self.assertEqual(await self.dig("node-1.walt"), "192.168.77.20")

    async def test_refused_zone(self) -> None:
        """A zone that named does not take is noticed, told in its words, and mended."""
        self.assertTrue(await self.service.watch.answered())
        health = self.service.health
        self.assertEqual((health.state, health.trouble), ("running", None))
        pid = health.pid
        await self.service.apply(DnsConfig(
            SERVER, (NamesOf("192.168.77", (("no name", "192.168.77.40"),)),), ()
        ))
        await until(lambda: self.service.health.state != "running", "it is noticed")
        told = self.service.health.trouble or ""
        self.assertRegex(
            told, r"^has serial \d+ of zone walt, not \d+; it says: .*"
            r"zone walt/IN: (loading from master file|not loaded due to errors)"
        )
        self.assertEqual(self.service.health.pid, pid)  # first it is told to read it again
        await until(lambda: self.service.health.restarts, "it is started again")
        await self.service.apply(dns_config(SERVER, SUBNET, DEVICES, (str(SERVER),)))
        await until(lambda: self.service.health.state == "running", "it has its zones")
        self.assertEqual(await self.dig("node-1.walt"), "192.168.77.20")

    async def test_runs_as_bind_and_stops(self) -> None:
        """named never is root, and is gone after stopService."""
        await self.dig("node-1.walt")
        pid = self.service.child.pid
        status = Path(f"/proc/{pid}/status").read_text()
        self.assertIn("named", status)
        uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
        self.assertNotEqual(uid, "0")
        await self.service.stopService()
        self.assertFalse(Path(f"/proc/{pid}").exists())
