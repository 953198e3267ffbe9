"""The real dhcpd with the configuration we generate, and crafted clients."""

from __future__ import annotations

import os
import re
import subprocess
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.dhcp_packets import ACK, DhcpClient
from tests.system.hanging import SHORT, stop_and_come_back
from tests.system.netns import Namespace, join, short_dir, why_not
from tests.system.processes import pipes_closed
from walt.common.leases import Sighting
from walt.server.adapters.dhcpd.daemon import DhcpdService
from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.dhcp import dhcp_config

SERVER = "192.168.77.1"
INTERFACE = IPv4Interface(f"{SERVER}/24")
WIDE = IPv4Interface("10.66.0.1/20")
BIOS = b"PXEClient:Arch:00000:UNDI:002001"
HOSTILE = (
    b"a\"b'; $(reboot) `x` \n}\r\n"
    b"walt-lease 1:2:3:4:5:6 192.168.77.9 end 0 unknown \xff\xfe\\"
)

DEVICES = [
    Device("02:00:00:00:00:01", "lan-node", "node", "192.168.77.20"),
    Device("02:00:00:00:00:02", "nat-node", "node", "192.168.77.21", conf={"netsetup": 1}),
    Device("02:00:00:00:00:03", "odd", "unknown", "192.168.77.22"),
    Device("02:00:00:00:00:04", "subnet", "switch", "192.168.77.23"),
    Device(
        "02:00:00:00:00:05", "pi5", "node", "192.168.77.24", vpn_mac="52:54:00:00:00:55"
    ),
]


class DhcpdCase(TestCase):
    """A running dhcpd in one namespace, clients in another."""

    timeout = patient(90)

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.server, self.clients = Namespace(self), Namespace(self)
        join(self.server, "walt-net", self.clients, "c0")
        self.server.run("ip", "address", "add", str(INTERFACE), "dev", "walt-net")
        self.dir = short_dir(self)
        self.addCleanup(pipes_closed, reactor)
        self.events: list[Sighting] = []
        self.former: list[Sighting] = []
        self.served: list[str] = []
        self.service = self.make_service()
        self.service.apply(dhcp_config(INTERFACE, DEVICES, ping_check=False))
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.client = DhcpClient(reactor, self.clients, "c0")
        self.addCleanup(self.client.close)

    def make_service(self) -> DhcpdService:
        service = DhcpdService(
            self.reactor, self.server.launcher, directory=self.dir / "services" / "dhcpd",
            runtime=self.dir / "run", place=self.server.inside, patience=SHORT,
        )
        service.leases.observe(self.events.append)
        service.former.observe(self.former.append)
        service.addresses.observe(self.served.append)
        return service

    async def until(self, condition, limit: float = 40.0) -> None:
        end = self.reactor.seconds() + limit
        while not condition():
            self.assertLess(self.reactor.seconds(), end, "waited too long")
            await deferLater(self.reactor, 0.05, lambda: None)

    async def lost(self, *known: str) -> list[Sighting]:
        """Return who holds a lease and is not known, as the server looks for them at start."""
        await self.service.tell_former()
        found, self.former = self.former, []
        return [holder for holder in found if holder.mac not in known]

    async def event(self) -> Sighting:
        await self.until(lambda: self.events)
        return self.events.pop()


class DhcpdTests(DhcpdCase):
    skip = why_not("dhcpd", "ip", "nsenter", "setpriv")

    async def test_new_device(self) -> None:
        """A device never seen gets a free address, every option but a router, and is reported."""
        _, answer = await self.client.exchange("00:0c:01:02:03:04", {12: b"probe"})
        self.assertEqual(answer.kind, ACK)
        self.assertNotIn(answer.yiaddr, [device.ip for device in DEVICES] + [SERVER])
        self.assertEqual(answer.siaddr, SERVER)
        self.assertIsNone(answer.address(3))
        self.assertEqual(answer.text(66), SERVER)
        self.assertEqual(answer.address(42), SERVER)
        self.assertEqual(answer.address(6), SERVER)
        self.assertEqual(answer.text(15), "walt")
        self.assertEqual(answer.options[119], b"\x04walt\x00")
        self.assertEqual(answer.address(28), "192.168.77.255")
        self.assertEqual(answer.address(1), "255.255.255.0")
        self.assertEqual(int.from_bytes(answer.options[51], "big"), 6_000_000)
        self.assertEqual(answer.file, "")
        event = await self.event()
        self.assertEqual(
            event, Sighting("00:0c:01:02:03:04", answer.yiaddr, name="probe-020304")
        )

    async def test_who_gets_an_address(self) -> None:
        """Is told each time: known devices, which lease nothing, too; no name is believed."""
        known, other = DEVICES[0].mac, "00:0c:01:02:03:04"
        hostile = f"x) to {other} via walt-net DHCPACK on 192.168.77.9 to {other} "
        for mac in (known, other, known):
            _, answer = await self.client.exchange(mac, {12: hostile.encode()})
            self.assertEqual(answer.kind, ACK)
        await self.until(lambda: len(self.served) == 3)
        self.assertEqual(self.served, [known, other, known])

    async def test_client_identifiers(self) -> None:
        """A machine has one address, whatever it calls itself; two never have the same one.

        Firmware, iPXE and systems have client identifiers of their own (RFC 2132 §9.14), and
        copies of one system the same.
        """
        macs = ("00:0c:01:02:03:04", "00:0c:01:02:03:05")
        found: dict[str, set[str]] = {mac: set() for mac in macs}
        for identifier in (b"\0firmware", None, b"\xff\1\2\3\4system", b"\1\0\x0c\1\2\3\4"):
            for mac in macs:
                options = {} if identifier is None else {61: identifier}
                _, answer = await self.client.exchange(mac, options)
                self.assertEqual(answer.kind, ACK)
                found[mac].add(answer.yiaddr)
        first, second = (found[mac] for mac in macs)
        self.assertEqual((len(first), len(second), first & second), (1, 1, set()))
        # A machine that is known has its own address with any of them.
        _, answer = await self.client.exchange(DEVICES[0].mac, {61: b"\0firmware"})
        self.assertEqual(answer.yiaddr, DEVICES[0].ip)

    async def test_registered_devices(self) -> None:
        """LAN devices get no router, NAT ones do; nodes and switches cause no event."""
        for device, router in zip(DEVICES[:4], (None, SERVER, None, None), strict=True):
            _, answer = await self.client.exchange(device.mac)
            self.assertEqual(answer.yiaddr, device.ip)
            self.assertEqual(answer.text(12), device.name)
            self.assertEqual(answer.address(3), router)
        # Events come in their order: with this one, every other one has come.
        await self.client.exchange("00:11:22:33:44:99")
        await self.until(lambda: self.events and self.events[-1].mac == "00:11:22:33:44:99")
        self.assertEqual([(e.mac, e.known_as) for e in self.events[:-1]],
                         [(DEVICES[2].mac, "unknown")])

    async def test_vpn_node_has_two_entries(self) -> None:
        """Both MACs get the address; only the real one always gets a router."""
        _, real = await self.client.exchange("02:00:00:00:00:05")
        _, tunnel = await self.client.exchange("52:54:00:00:00:55")
        self.assertEqual((real.yiaddr, real.address(3)), ("192.168.77.24", SERVER))
        self.assertEqual((tunnel.yiaddr, tunnel.address(3)), ("192.168.77.24", None))
        self.assertEqual((real.text(12), tunnel.text(12)), ("pi5", "pi5"))

    async def test_bios_pxe(self) -> None:
        """A PXE BIOS is sent to its loader, an UEFI of x86-64 to its own, others to nothing."""
        offer, answer = await self.client.exchange(
            "00:11:22:33:44:01", {60: BIOS, 93: b"\0\0"}
        )
        self.assertEqual(offer.file, "pxe/walt-x86-undionly.kpxe")
        self.assertEqual(answer.file, "pxe/walt-x86-undionly.kpxe")
        for number in (7, 9):
            offer, answer = await self.client.exchange(
                "00:11:22:33:44:02",
                {60: b"PXEClient:Arch:%05d:UNDI:003016" % number, 93: bytes([0, number])},
            )
            for one in (offer, answer):
                self.assertEqual(one.file, "pxe/walt-x86-64-snponly.efi")
                self.assertIsNone(one.text(60))
                self.assertEqual(one.siaddr, SERVER)
        offer, answer = await self.client.exchange(
            "00:11:22:33:44:02", {60: b"HTTPClient:Arch:00016:UNDI:003016", 93: b"\0\x10"}
        )
        for one in (offer, answer):
            self.assertEqual(one.file, f"http://{SERVER}/pxe/walt-x86-64-snponly.efi")
            self.assertEqual(one.text(60), "HTTPClient")
        # 32-bit ones and ARM get an address.
        for number, kind in ((6, b"PXEClient"), (11, b"PXEClient"), (19, b"HTTPClient")):
            _, other = await self.client.exchange(
                "00:11:22:33:44:04",
                {60: b"%s:Arch:%05d:UNDI:003016" % (kind, number), 93: bytes([0, number])},
            )
            self.assertEqual(other.file, "")
        _, plain = await self.client.exchange(
            "00:11:22:33:44:05",
            {60: b"PXEClient:Arch:00007:UNDI:003010", 93: b"\0\x07", 77: b"iPXE"},
        )
        self.assertEqual(plain.file, "pxe/walt.ipxe")

    async def test_ipxe(self) -> None:
        """iPXE with our script gets no file and is reported; plain iPXE gets our script."""
        _, ours = await self.client.exchange(
            "00:11:22:33:44:03", {60: BIOS, 93: b"\0\0", 77: b"walt.node.pc-x86-64"}
        )
        self.assertEqual(ours.file, "")
        self.assertEqual(ours.options[175], b"\xb0\x01\x01")  # no-pxedhcp = 1
        event = await self.event()
        self.assertEqual((event.vci, event.uci), (BIOS.decode(), "walt.node.pc-x86-64"))
        _, plain = await self.client.exchange(
            "00:11:22:33:44:03", {60: BIOS, 93: b"\0\0", 77: b"iPXE"}
        )
        self.assertEqual(plain.file, "pxe/walt.ipxe")

    async def test_raspberry_pi(self) -> None:
        """Every vendor prefix of Raspberry Pi boards gets the boot menu and no file."""
        for prefix in ("28:cd:c1", "b8:27:eb", "d8:3a:dd", "dc:a6:32", "e4:5f:01",
                       "2c:cf:67", "88:a2:9e"):
            _, answer = await self.client.exchange(f"{prefix}:00:00:01", {60: BIOS, 93: b"\0\0"})
            self.assertEqual(answer.file, "", prefix)
            self.assertEqual(answer.text(60), "PXEClient")
            self.assertEqual(
                answer.options[43].rstrip(b"\xff"), b"\x09\x14\x00\x00\x11Raspberry Pi Boot"
            )

    async def test_u_boot(self) -> None:
        """A u-boot loader announces its model by the vendor class."""
        _, answer = await self.client.exchange("e4:5f:01:00:00:02", {60: b"walt.node.rpi-4-b"})
        self.assertEqual(answer.file, "")
        event = await self.event()
        self.assertEqual(event.vci, "walt.node.rpi-4-b")
        self.assertTrue(event.is_news)
        self.assertIsNone(event.name)

    async def test_hostile_texts_stay_data(self) -> None:
        """Quotes, line feeds, fake lines, 255 bytes and bad UTF-8 change nothing else."""
        mac = "00:11:22:33:44:66"
        await self.client.exchange(mac, {60: HOSTILE, 77: b"\xe9" * 600, 12: b"x" * 255})
        event = await self.event()
        self.assertEqual(event.mac, mac)
        self.assertEqual(event.vci, HOSTILE.decode("latin-1"))
        self.assertEqual(event.uci, "\xe9" * 255)
        self.assertEqual(event.name, "x" * 255 + "-334466")
        await self.client.exchange("00:11:22:33:44:99")
        self.assertEqual((await self.event()).mac, "00:11:22:33:44:99")
        self.assertEqual(self.events, [])
        lost = await self.lost("00:11:22:33:44:99")
        self.assertEqual([(e.mac, e.vci) for e in lost], [(mac, HOSTILE.decode("latin-1"))])

    async def test_lost_leases(self) -> None:
        """Leases of devices that nobody registered are found again in the leases file."""
        await self.client.exchange("00:11:22:33:44:77", {60: b"walt.node.rpi-4-b", 12: b"pi"})
        await self.event()
        (lost,) = await self.lost()
        self.assertEqual(
            (lost.mac, lost.vci, lost.name),
            ("00:11:22:33:44:77", "walt.node.rpi-4-b", "pi-334477"),
        )
        self.assertEqual(await self.lost("00:11:22:33:44:77"), [])

    async def test_change_restarts_once(self) -> None:
        """Changes in a row are merged into one restart, after which they are in force."""
        pid = self.service.child.pid
        waits: list[Deferred[None]] = []
        for number in range(5):
            extra = Device(f"02:00:00:00:01:0{number}", f"n{number}", "node",
                           f"192.168.77.{100 + number}")
            config = dhcp_config(INTERFACE, [*DEVICES, extra], ping_check=False)
            waits.append(self.service.apply(config))
        for wait in waits:
            await wait
        self.assertNotEqual(self.service.child.pid, pid)
        self.assertEqual(self.service.health.restarts, 1)
        _, answer = await self.client.exchange("02:00:00:00:01:04")
        self.assertEqual(answer.yiaddr, "192.168.77.104")

    async def test_it_is_asked_without_a_lease(self) -> None:
        """dhcpd answers the server's own question, which costs no address and is no event."""
        self.assertTrue(await self.service.watch.answered())
        self.assertEqual(self.service.health.state, "running")
        self.assertIsNone(self.service.health.trouble)
        self.assertEqual(self.events, [])
        leases = (self.dir / "services" / "dhcpd" / "leases" / "dhcpd.leases").read_text()
        self.assertNotIn("lease 192", leases)

    async def test_stopped_process(self) -> None:
        """A dhcpd that hangs is noticed and replaced by one that gives addresses."""
        await stop_and_come_back(self.service)
        _, answer = await self.client.exchange(DEVICES[0].mac)
        self.assertEqual(answer.yiaddr, DEVICES[0].ip)

    async def test_refused_configuration(self) -> None:
        """It is told in dhcpd's words; the former configuration counts until the next change."""
        self.assertTrue(await self.service.watch.answered())
        good = dhcp_config(INTERFACE, DEVICES, ping_check=False)
        await self.service.apply(good._replace(ranges=(("192.168.78.5", "192.168.78.9"),)))
        await self.until(lambda: self.service.health.trouble)
        self.assertEqual(
            self.service.health.trouble,
            "ended with status 1: it refuses its configuration: bad range, address 192.168.78.5"
            " not in subnet 192.168.77.0 netmask 255.255.255.0",
        )
        _, answer = await self.client.exchange(DEVICES[0].mac)
        self.assertEqual(answer.yiaddr, DEVICES[0].ip)
        self.assertEqual(self.service.health.state, "running")
        more = Device("02:00:00:00:01:01", "more", "node", "192.168.77.101")
        await self.service.apply(dhcp_config(INTERFACE, [*DEVICES, more], ping_check=False))
        _, answer = await self.client.exchange(more.mac)
        self.assertEqual(answer.yiaddr, more.ip)

    async def test_stop_leaves_nothing(self) -> None:
        """After stopService dhcpd is gone."""
        await self.client.exchange("00:11:22:33:44:88")
        pid = self.service.child.pid
        await self.service.stopService()
        self.assertFalse(Path(f"/proc/{pid}").exists())


class BurstTests(DhcpdCase):
    skip = why_not("dhcpd", "ip", "nsenter", "setpriv", "perfdhcp")

    async def test_burst_of_new_devices(self) -> None:
        """Hundreds of new devices a second: all reported, no restart before they calm down."""
        known: dict[str, Device] = {}
        pending: list[Any] = []

        def register(event: Sighting) -> None:
            name = f"unknown-{event.mac.replace(':', '')}"
            known[event.mac] = Device(event.mac, name, "unknown", event.ip)
            if not pending:  # merged, as NetworkServices does
                pending.append(self.reactor.callLater(0.05, derive))

        def derive() -> None:
            pending.clear()
            self.service.apply(dhcp_config(WIDE, [*known.values()], ping_check=False))

        self.server.run("ip", "address", "add", str(WIDE), "dev", "walt-net")
        await self.service.stopService()
        self.service = DhcpdService(
            self.reactor, self.server.launcher, directory=self.dir / "services" / "dhcpd",
            runtime=self.dir / "run", place=self.server.inside,
        )
        self.service.leases.observe(register)
        await self.service.apply(dhcp_config(WIDE, [], ping_check=False))
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.clients.run("ip", "address", "add", "10.66.0.2/20", "dev", "c0")
        await self.until(self.listens)
        pid = self.service.child.pid
        argv = self.clients.command(
            "perfdhcp", "-4", "-B", "-l", "c0", "-r", "200", "-R", "100000", "-n", "600",
            "-W", "1000000", "all",
        )
        out, _, _ = await getProcessOutputAndValue(argv[0], argv[1:], os.environ)
        self.assertEqual(self.service.child.pid, pid, "restarted in the middle of the burst")
        acks = int(re.findall(rb"received packets: (\d+)", out)[1])
        self.assertGreater(acks, 300, out.decode())
        leases = (self.dir / "services" / "dhcpd" / "leases" / "dhcpd.leases").read_text()
        leased = set(re.findall(r"hardware ethernet ([0-9a-f:]+);", leases))
        self.assertGreaterEqual(len(leased), acks)
        await self.until(lambda: known.keys() == leased)  # all are reported, and only they
        await self.until(lambda: self.service.child.pid not in (pid, None))
        self.assertEqual(self.service.health.restarts, 1)
        text = (self.dir / "services" / "dhcpd" / "dhcpd.conf").read_text()
        self.assertEqual(set(re.findall(r"hardware ethernet ([0-9a-f:]+);", text)), leased)
        self.assertEqual(await self.lost(*known), [])

    def listens(self) -> bool:
        """Tell whether dhcpd receives packets: a raw socket, and one of UDP (packet(7))."""
        return all(
            len(self.server.run("cat", f"/proc/net/{kind}").splitlines()) > 1
            for kind in ("packet", "udp")
        )


class KeywordNamesTests(TestCase):
    skip = why_not("dhcpd")

    def test_names_that_are_words_of_dhcpd(self) -> None:
        """Device names that dhcpd uses as keywords are accepted."""
        from walt.server.domain.network_services.dhcp import render

        words = ("range", "if", "subnet", "host", "group", "deny", "known", "unknown", "else",
                 "hardware", "option", "filename", "true", "null", "host-name", "node-1")
        devices = [
            Device(f"02:00:00:00:02:{n:02x}", word, "node", f"192.168.77.{n + 10}")
            for n, word in enumerate(words)
        ]
        conf = short_dir(self) / "dhcpd.conf"
        conf.write_text(render(dhcp_config(INTERFACE, devices)))
        done = subprocess.run(
            ["dhcpd", "-t", "-cf", str(conf)], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
