"""Who enrols in the VPN, who does not, and what ends it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.fakes.devices import FakeDeviceStore
from tests.fakes.vpn import FakeAuthority, FakeHostKeys, FakeNeighbours, FakeVpnKeys
from tests.server.domain.nodes.test_keys import key
from walt.common.errors import Busy, Conflict, Denied, Invalid, NotFound, Unavailable, WaltError
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.vpn.enrolment import MOST_WAITING, VpnNodes
from walt.server.domain.vpn.model import EntryPoints, cert_id_of

MAC, IP = "d8:3a:dd:00:00:05", "192.168.1.5"
BOARD = Device(
    MAC, "pi", "node", IP, model="rpi-5-b", image="waltplatform/rpi-5-b-default:latest"
)
ID = "vpn_d83add000005"
ENTRY_POINTS = EntryPoints("vpn.example.org:2222", "www.example.org", "enforced")
NEW = ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"]


class VpnTests(TestCase):
    async def make(
        self, *devices: Device, entry_points: EntryPoints | None = ENTRY_POINTS
    ) -> VpnNodes:
        self.registry = DeviceRegistry(
            FakeDeviceStore(*(devices or (BOARD,))), IPv4Network("192.168.1.0/24")
        )
        await self.registry.load()
        self.keys, self.authority = FakeVpnKeys(), FakeAuthority()
        self.cable, self.said = FakeNeighbours({IP: MAC}), list[str]()
        self.owners: dict[str, str] = {}
        self.macs = list(NEW)
        self.ended: list[str] = []
        vpn = VpnNodes(
            self.registry, entry_points, self.keys, self.authority, self.cable, FakeHostKeys(),
            lambda: self.macs.pop(0), self.said.append, self.owners.get,
        )
        vpn.revoked.observe(self.ended.append)
        return vpn

    async def test_first_enrolment(self) -> None:
        """The board gets a certificate with its identity, and a MAC of the VPN."""
        vpn = await self.make()
        self.assertEqual((vpn.vpn_mac(IP), await vpn.certificate(IP)), ("", ""))
        made = await vpn.enrol(IP, key(1, "root@board\n"))
        self.assertEqual((made.cert_id, made.vpn_mac), (ID, NEW[0]))
        self.assertEqual(cert_id_of(MAC), ID)
        self.assertIn(ID, made.certificate)
        self.assertEqual(vpn.vpn_mac(IP), NEW[0])
        self.assertEqual(await vpn.certificate(IP), made.certificate)
        self.assertEqual(self.registry.get(NEW[0]), replace(BOARD, vpn_mac=NEW[0]))
        self.assertEqual(self.keys.joined, {MAC: NEW[0]})
        self.assertEqual(await vpn.rows(), [{
            "certid": ID, "revoked": False, "forgotten_device": False,
            "device_label": f'node "pi" mac={MAC}',
        }])

    async def test_again(self) -> None:
        """Enrolling again, by way of the tunnel too, replaces the certificate alone."""
        vpn = await self.make()
        first = await vpn.enrol(IP, key(1))
        self.assertIn("by cable", self.said[-1])
        self.cable.macs[IP] = NEW[0]
        self.cable.interfaces[NEW[0]], self.owners["walt-vpn3"] = "walt-vpn3", ID
        second = await vpn.enrol(IP, key(2))
        self.assertEqual(first.vpn_mac, second.vpn_mac)
        self.assertNotEqual(first.certificate, second.certificate)
        self.assertEqual(await vpn.certificate(IP), second.certificate)
        self.assertEqual(len(await vpn.rows()), 1)

    async def test_twice_at_once(self) -> None:
        """Two enrolments at the same moment give one MAC."""
        vpn = await self.make()
        self.authority.gate = gate = Deferred[None]()
        both = [Deferred.fromCoroutine(vpn.enrol(IP, key(number))) for number in (1, 2)]
        gate.callback(None)
        self.assertEqual({(await one).vpn_mac for one in both}, {NEW[0]})
        self.assertEqual(list(self.keys.keys), [NEW[0]])

    async def test_many_at_once(self) -> None:
        """Those that are too many are told to come again."""
        vpn = await self.make()
        self.authority.gate = gate = Deferred[None]()
        waiting = [Deferred.fromCoroutine(vpn.enrol(IP, key(1))) for _ in range(MOST_WAITING)]
        with self.assertRaises(Busy):
            await vpn.enrol(IP, key(1))
        gate.callback(None)
        for one in waiting:
            await one
        await vpn.enrol(IP, key(1))

    async def test_free_macs(self) -> None:
        """The MAC of the VPN is one that no device has, nor had a forgotten one."""
        vpn = await self.make(BOARD, Device(NEW[0], "vm", "node", "192.168.1.6", virtual=True))
        enrolled = await vpn.enrol(IP, key(1))
        await self.keys.enrol("02:00:00:00:00:01", enrolled._replace(
            vpn_mac=NEW[2], cert_id="vpn_020000000001",
        ))
        self.assertEqual(vpn.vpn_mac(IP), NEW[1])

    async def refused(self, vpn: VpnNodes, error: type[WaltError], ip: str = IP,
                      line: str = "") -> None:
        """An enrolment fails so, and leaves nothing."""
        with self.assertRaises(error):
            await vpn.enrol(ip, line or key(1))
        self.assertEqual(self.keys.keys, {})
        self.assertEqual([one.vpn_mac for one in self.registry.nodes()],
                         [None] * len(self.registry.nodes()))

    async def test_strangers(self) -> None:
        """No device, one that is no board, a virtual one, one outside walt-net."""
        vpn = await self.make(
            replace(BOARD, model="rpi-4-b"),
            replace(BOARD, mac="02:00:00:00:00:06", name="six", ip="192.168.1.6", virtual=True),
            replace(BOARD, mac="02:00:00:00:00:07", name="seven", ip="10.0.0.7"),
            Device("02:00:00:00:00:08", "eight", "unknown", "192.168.1.8"),
        )
        for ip in (IP, "192.168.1.6", "10.0.0.7", "192.168.1.8", "192.168.1.77", "::1", "x"):
            await self.refused(vpn, Denied, ip)
            with self.assertRaises(Denied):
                vpn.vpn_mac(ip)
            with self.assertRaises(Denied):
                await vpn.certificate(ip)

    async def test_the_address_of_another(self) -> None:
        """Who uses the address of a board with another MAC, or none that is known, gets nothing."""
        vpn = await self.make()
        for mac in ("02:00:00:00:00:66", None):
            self.cable.macs = {} if mac is None else {IP: mac}
            await self.refused(vpn, Denied)
        self.assertIn("02:00:00:00:00:66 tried to enrol in the VPN as pi", self.said[0])
        made = await vpn.enrol(IP, key(1), on_behalf=True)  # the server's own machine may
        self.assertEqual(made.cert_id, ID)

    async def test_no_cable(self) -> None:
        """Behind tunnels and virtual nodes MACs are invented: no new board is there."""
        vpn = await self.make()
        for interface in ("walt-vpn0", "walt-vpn1", "wt0123456789"):
            self.owners = {"walt-vpn0": "vpn_d83add000009", "walt-vpn1": ID}
            self.cable.interfaces[MAC] = interface
            await self.refused(vpn, Denied)
            self.assertIn(f"behind {interface}", self.said[-1])
        for interface in ("eth0", "eno1.100", "wt0", "wlan0"):
            self.cable.interfaces[MAC] = interface
            await vpn.enrol(IP, key(1))

    async def test_by_the_tunnel_of_another(self) -> None:
        """Who has a tunnel gets no certificate of a board that is enrolled."""
        vpn = await self.make()
        made = await vpn.enrol(IP, key(1))
        for mac in (MAC, NEW[0]):
            self.cable.macs[IP] = mac
            for interface in ("walt-vpn0", "walt-vpn7", "wt0123456789"):
                self.owners["walt-vpn0"] = "vpn_d83add000009"
                self.cable.interfaces[mac] = interface
                with self.assertRaises(Denied):
                    await vpn.enrol(IP, key(2))
        self.assertEqual(await vpn.certificate(IP), made.certificate)

    async def test_keys_that_are_none(self) -> None:
        """Options, two lines, private keys, short RSA keys, damage, megabytes."""
        vpn = await self.make()
        good = key(1)
        for line in (
            "x", "", " ", f'command="id" {good}', f"{good}\n{good}", good[:-4], good[:-8],
            "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-dss AAAA", "-f /etc/passwd",
            "ssh-rsa " + "A" * 100_000, f"{good}\0", "é" * 50,
        ):
            await self.refused(vpn, Invalid, line=line or " ")

    async def test_not_configured(self) -> None:
        """Without entry points nobody enrols, and there are no host keys."""
        vpn = await self.make(entry_points=None)
        await self.refused(vpn, Invalid)
        with self.assertRaises(Invalid):
            await vpn.host_keys()

    async def test_host_keys(self) -> None:
        """They are those of the ssh entry point, at its port."""
        vpn = await self.make()
        self.assertIn("vpn.example.org:2222", await vpn.host_keys())
        self.assertEqual(EntryPoints("a", "b", "permissive").ssh_address, ("a", 22))

    async def test_revoked(self) -> None:
        """The tunnel refuses it at once, and the board gets no other certificate."""
        vpn = await self.make()
        await vpn.enrol(IP, key(1))
        self.assertIsNone(await vpn.refusal(ID))
        await vpn.revoke(ID)
        self.assertEqual((self.authority.refused, self.ended), ({ID}, [ID]))
        self.assertEqual(await vpn.refusal(ID), f"the key {ID} is revoked")
        self.assertTrue((await vpn.rows())[0]["revoked"])
        with self.assertRaises(Denied):
            await vpn.enrol(IP, key(2))
        with self.assertRaisesRegex(Conflict, "already revoked"):
            await vpn.revoke(ID)
        with self.assertRaisesRegex(NotFound, "Did not find"):
            await vpn.revoke("vpn_000000000000")
        self.authority.refused = set()
        await vpn.prepare()  # as a start after a restored backup does
        self.assertEqual(self.authority.refused, {ID})

    async def test_the_database_fails_while_revoking(self) -> None:
        """The tunnel is closed all the same, and it can be said again."""
        vpn = await self.make()
        await vpn.enrol(IP, key(1))
        self.keys.errors.append(Unavailable("no database"))
        with self.assertRaises(Unavailable):
            await vpn.revoke(ID)
        self.assertEqual(self.authority.refused, {ID})
        await vpn.revoke(ID)
        self.assertTrue((await vpn.rows())[0]["revoked"])

    async def test_forgotten(self) -> None:
        """The key of a forgotten board is kept apart, and can be revoked."""
        vpn = await self.make()
        await vpn.enrol(IP, key(1))
        device = self.registry.get(MAC)
        assert device is not None
        await self.registry.forget(device)
        label = f'forgotten device "pi" mac={MAC}'
        self.keys.keys[NEW[0]] = self.keys.keys[NEW[0]]._replace(label=label)
        self.assertEqual(await vpn.rows(), [{
            "certid": ID, "revoked": False, "forgotten_device": True, "device_label": label,
        }])
        await self.registry.put(BOARD)
        again = await vpn.enrol(IP, key(2))
        self.assertEqual((again.cert_id, again.vpn_mac), (ID, NEW[1]))
        await vpn.revoke(ID)
        self.assertEqual([one["revoked"] for one in await vpn.rows()], [True, True])

    async def test_forgotten_meanwhile(self) -> None:
        """A board that is forgotten while its key is signed stays forgotten."""
        vpn = await self.make()
        self.authority.gate = gate = Deferred[None]()
        enrolling = Deferred.fromCoroutine(vpn.enrol(IP, key(1)))
        await self.registry.forget(BOARD)
        gate.callback(None)
        with self.assertRaises(Denied):
            await enrolling
        self.assertEqual((self.keys.keys, self.registry.all()), ({}, []))

    async def test_unknown_to_the_tunnel(self) -> None:
        """A certificate of the same authority that belongs to no board opens nothing."""
        vpn = await self.make()
        self.assertIn("no board", str(await vpn.refusal("ssh-endpoint-test")))
