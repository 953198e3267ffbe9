"""What the stores and the authority of the VPN do: the fakes, PostgreSQL, ssh-keygen."""

from __future__ import annotations

import json
import os
import subprocess
from abc import abstractmethod
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.vpn import (
    FakeAuthority,
    FakeEntryPoints,
    FakeNames,
    FakeNeighbours,
    FakeVpnKeys,
    FakeVpnTaps,
)
from tests.server.domain.nodes.test_keys import key
from tests.system import cluster
from tests.system.netns import Namespace, short_dir, why_not
from walt.common.errors import CommandFailed, Invalid, NotFound, Unavailable
from walt.server.adapters.network.vpn_taps import VpnTaps
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.entry_points import PostgresEntryPoints
from walt.server.adapters.postgres.migrate import migrate
from walt.server.adapters.postgres.vpn_keys import PostgresVpnKeys
from walt.server.adapters.vpn import sshd
from walt.server.adapters.vpn.account import ACCOUNT
from walt.server.adapters.vpn.authority import SshAuthority
from walt.server.adapters.vpn.names import HostNames
from walt.server.adapters.vpn.neighbours import Neighbours
from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.tunnel import TunnelConfig, render
from walt.server.domain.vpn.interfaces import (
    IAddressesOfNames,
    IEntryPointNames,
    INeighbours,
    IVpnAuthority,
    IVpnKeys,
    IVpnTaps,
)
from walt.server.domain.vpn.model import Neighbour, VpnKey
from walt.server.runtime.process import Launcher, ProcessRunner

BOARD = Device(
    "d8:3a:dd:00:00:05", "pi", "node", "192.168.1.5", model="rpi-5-b",
    image="waltplatform/rpi-5-b-default:latest",
)
ONE = VpnKey("52:54:00:00:00:01", "cert one", "vpn_d83add000005")


class VpnKeysContract(Contract):
    """`make` returns an IVpnKeys of a platform that knows BOARD alone."""

    @abstractmethod
    async def make(self) -> IVpnKeys:
        """Given by each implementation."""

    async def test_life(self) -> None:
        """Added once, renewed, revoked, never deleted."""
        keys = await self.make()
        verifyObject(IVpnKeys, keys)
        self.assertEqual(await keys.load(), [])
        with self.assertRaises(NotFound):
            await keys.enrol("02:00:00:00:00:01", VpnKey("52:54:00:00:00:09", "c", "vpn_x"))
        self.assertEqual(await keys.load(), [])
        await keys.enrol(BOARD.mac, ONE)
        self.assertEqual(await keys.load(), [ONE])
        await keys.replace_certificate(ONE.vpn_mac, "cert two")
        self.assertEqual((await keys.load())[0].certificate, "cert two")
        await keys.revoke("vpn_else")
        self.assertFalse((await keys.load())[0].revoked)
        await keys.revoke(ONE.cert_id)
        self.assertTrue((await keys.load())[0].revoked)


class FakeVpnKeysTests(VpnKeysContract, TestCase):
    async def make(self) -> Any:
        return FakeVpnKeys([BOARD.mac])


class PostgresVpnKeysTests(VpnKeysContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> Any:
        database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(database.close)
        await migrate(database)
        self.devices = PostgresDevices(database)
        await self.devices.save([BOARD])
        return PostgresVpnKeys(database)

    async def test_forgetting_labels_the_key(self) -> None:
        """The device knows its MAC of the VPN; forgotten, its key keeps its name."""
        keys = await self.make()
        await keys.enrol(BOARD.mac, ONE)
        found: list[Device] = []
        await self.devices.load(found.extend)
        (device,) = found
        self.assertEqual(device.vpn_mac, ONE.vpn_mac)
        await self.devices.forget([BOARD.mac], {})
        found.clear()
        await self.devices.load(found.extend)
        self.assertEqual(found, [])
        (kept,) = await keys.load()
        self.assertEqual(kept.label, f'forgotten device "pi" mac={BOARD.mac}')
        await self.devices.save([BOARD])
        await keys.enrol(BOARD.mac, VpnKey("52:54:00:00:00:02", "new", ONE.cert_id))
        self.assertEqual([one.label for one in await keys.load()], [kept.label, None])


class AuthorityContract(Contract):
    """`make` returns an IVpnAuthority that is new."""

    @abstractmethod
    async def make(self) -> IVpnAuthority:
        """Given by each implementation."""

    async def test_life(self) -> None:
        """It is made once; it signs keys, and nothing else."""
        authority = await self.make()
        verifyObject(IVpnAuthority, authority)
        public = await authority.prepare()
        self.assertEqual(public.split()[0], "ecdsa-sha2-nistp521")
        self.assertEqual(await authority.prepare(), public)
        made = await authority.sign(key(1).strip(), "vpn_1")
        self.assertTrue(made.startswith("ssh-ed25519-cert-v01@openssh.com "))
        with self.assertRaises(Invalid):
            await authority.sign("nonsense", "vpn_1")
        await authority.refuse(["vpn_1", "vpn_2"])
        await authority.refuse([])


class FakeAuthorityTests(AuthorityContract, TestCase):
    async def make(self) -> Any:
        return FakeAuthority()


class SshAuthorityTests(AuthorityContract, TestCase):
    async def make(self) -> Any:
        self.directory = Path(short_dir(self)) / "vpn-server"
        return SshAuthority(ProcessRunner(reactor), self.directory)

    def keygen(self, *words: str) -> str:
        done = subprocess.run(
            ["ssh-keygen", *words], capture_output=True, text=True, cwd=self.directory,
            check=False,
        )
        return done.stdout + done.stderr

    async def test_certificates_and_the_list(self) -> None:
        """Identity and account are those of N-131, there is no end; the list names identities."""
        authority = await self.make()
        await authority.prepare()
        self.assertEqual((self.directory / "vpn-ca-key").stat().st_mode & 0o777, 0o600)
        cert = self.directory / "one-cert.pub"
        self.keygen("-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", "one")
        line = (self.directory / "one.pub").read_text()
        cert.write_text(await authority.sign(line.strip(), "vpn_d83add000005"))
        shown = self.keygen("-L", "-f", "one-cert.pub")
        self.assertIn('Key ID: "vpn_d83add000005"', shown)
        self.assertIn("Valid: forever", shown)
        self.assertIn("walt-vpn", shown.split("Principals:")[1].split("Critical")[0])
        self.assertIn("ecdsa-sha2-nistp384-cert-v01", shown)
        for refused, answer in (
            ([], "ok"), (["vpn_else"], "ok"), (["vpn_d83add000005", "vpn_else"], "REVOKED"),
            (["vpn_else"], "ok"),
        ):
            await authority.refuse(refused)
            self.assertIn(answer, self.keygen("-Q", "-f", "revoked.krl", "one-cert.pub"))
        self.assertEqual(
            sorted(one.name for one in self.directory.iterdir()),
            ["one", "one-cert.pub", "one.pub", "revoked.krl", "vpn-ca-key", "vpn-ca-key.pub"],
        )


class SshdTests(TestCase):
    skip = why_not("sshd", "ssh-keygen", "setpriv", "prlimit")

    async def test_configuration(self) -> None:
        """OpenSSH's sshd accepts it, and ends sessions and connections that do nothing."""
        place = Path(short_dir(self))
        place.chmod(0o755)
        host_key = place / "host"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True
        )
        nobody = 65534
        os.chown(host_key, nobody, nobody)
        config = TunnelConfig(
            port=2222, account="walt-vpn", host_keys=(host_key,), authority=place / "ca.pub",
            revoked=place / "krl", endpoint=place / "endpoint", socket=place / "socket",
            subnet=IPv4Network("192.168.1.0/24"), name="walt.example.org",
        )
        file = place / "sshd_config"
        file.write_text(render(config))
        shown = subprocess.run([
            "setpriv", "--reuid", str(nobody), "--clear-groups", "/usr/sbin/sshd", "-T", "-f",
            str(file),
        ], capture_output=True, text=True, check=True)
        self.assertIn("persourcemaxstartups 16\n", shown.stdout)
        self.assertIn("unusedconnectiontimeout 30\n", shown.stdout)

    def test_processes(self) -> None:
        """They have a limit, which holds for those of the account together."""
        place = Path(short_dir(self))
        config = TunnelConfig(
            port=2222, account=ACCOUNT, host_keys=(), authority=place, revoked=place,
            endpoint=place / "endpoint", socket=place, subnet=IPv4Network("192.168.1.0/24"),
            name="x",
        )
        service = sshd.SshdService(Clock(), Launcher(), directory=place, runtime=place)
        spec = service._written(config)
        end = spec.argv.index(sshd.PROGRAM)
        shown = subprocess.run(
            [*spec.argv[:end], "cat", "/proc/self/limits"], capture_output=True, text=True,
            check=True,
        )
        self.assertRegex(shown.stdout, rf"Max processes +{sshd.MOST_PROCESSES} ")


class TapsContract(Contract):
    """`make` returns an IVpnTaps, `names` the devices that it opened and that are there."""

    @abstractmethod
    async def make(self) -> IVpnTaps:
        """Given by each implementation."""

    @abstractmethod
    def names(self, taps: Any) -> list[str]:
        """Given by each implementation."""

    async def test_life(self) -> None:
        """Devices are opened under plain names."""
        taps = await self.make()
        verifyObject(IVpnTaps, taps)
        opened = [await taps.open(name) for name in ("walt-vpn0", "walt-vpn1")]
        self.assertEqual(self.names(taps), ["walt-vpn0", "walt-vpn1"])
        for one in opened:
            os.close(one)
        for name in ("-x", "a b", "", "x" * 16):
            with self.assertRaises(Invalid):
                await taps.open(name)


class FakeTapsTests(TapsContract, TestCase):
    async def make(self) -> Any:
        return FakeVpnTaps()

    def names(self, taps: Any) -> list[str]:
        return list(taps.names)


class RealTapsTests(TapsContract, TestCase):
    skip = why_not("ip", "nsenter", "setpriv")

    async def make(self) -> Any:
        self.ns = Namespace(self)
        self.ns.run("ip", "link", "add", "walt-net", "type", "bridge")
        runner = ProcessRunner(reactor, self.ns.launcher)
        inside = self.ns.inside

        class There(VpnTaps):
            """A server that lives in the namespace."""

            async def open(self, name: str) -> int:
                with inside():  # up to its first pause, it opens the device
                    waiting = Deferred.fromCoroutine(super().open(name))
                return await waiting

        return There(runner)

    def names(self, taps: Any) -> list[str]:
        shown = json.loads(self.ns.run("ip", "-json", "link", "show", "master", "walt-net"))
        return sorted(one["ifname"] for one in shown if "UP" in one["flags"])

    async def test_it_goes_with_its_descriptor(self) -> None:
        """Nothing has to be deleted; a name that is taken, or no bridge, is an error."""
        taps = await self.make()
        tap = await taps.open("walt-vpn0")
        with self.assertRaises(Unavailable):
            await taps.open("walt-vpn0")
        self.assertEqual(self.names(taps), ["walt-vpn0"])
        os.close(tap)
        self.assertEqual(self.names(taps), [])
        self.ns.run("ip", "link", "del", "walt-net")
        with self.assertRaises(CommandFailed):
            await taps.open("walt-vpn0")
        self.assertNotIn("walt-vpn0", self.ns.run("ip", "link"))


class NeighboursContract(Contract):
    """`make` returns an INeighbours; BOARD answers for its address, behind `cable`."""

    @abstractmethod
    async def make(self) -> INeighbours:
        """Given by each implementation."""

    async def test_find(self) -> None:
        """Who answers is known with the interface of the bridge; nobody else is."""
        neighbours = await self.make()
        verifyObject(INeighbours, neighbours)
        self.assertEqual(await neighbours.find(BOARD.ip), Neighbour(BOARD.mac, "cable"))
        for nobody in ("192.168.1.77", "x", "::1", "-h"):
            self.assertIsNone(await neighbours.find(nobody))


class FakeNeighboursTests(NeighboursContract, TestCase):
    async def make(self) -> Any:
        return FakeNeighbours({BOARD.ip: BOARD.mac})


class RealNeighboursTests(NeighboursContract, TestCase):
    skip = why_not("ip", "bridge", "nsenter", "setpriv")

    async def make(self) -> Any:
        here, there = self.here, _ = Namespace(self), Namespace(self)
        here.run("ip", "link", "add", "walt-net", "type", "bridge")
        here.run("ip", "address", "add", "192.168.1.1/24", "dev", "walt-net")
        here.run("ip", "link", "set", "walt-net", "up")
        here.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "eth0",
                 "address", BOARD.mac, "netns", there.name)
        here.run("ip", "link", "set", "cable", "master", "walt-net", "up")
        there.run("ip", "address", "add", f"{BOARD.ip}/24", "dev", "eth0")
        there.run("ip", "link", "set", "eth0", "up")
        here.run("ping", "-c", "1", "-w", "10", BOARD.ip)
        return Neighbours(ProcessRunner(reactor, here.launcher), "walt-net")

    async def test_a_mac_that_the_bridge_does_not_know(self) -> None:
        """The neighbour table alone proves nothing; nor is an own MAC a neighbour's."""
        neighbours = await self.make()
        own = json.loads(self.here.run("ip", "-json", "link", "show", "cable"))[0]["address"]
        for mac in ("02:00:00:00:00:66", own):
            self.here.run("ip", "neighbour", "replace", "192.168.1.9", "lladdr", mac, "dev",
                          "walt-net")
            self.assertIsNone(await neighbours.find("192.168.1.9"))


class EntryPointsContract(Contract):
    """`make` returns an IEntryPointNames that is empty."""

    @abstractmethod
    async def make(self) -> IEntryPointNames:
        """Given by each implementation."""

    async def test_life(self) -> None:
        """Names stay, in the order of their coming, with their last addresses."""
        names = await self.make()
        verifyObject(IEntryPointNames, names)
        self.assertEqual(await names.load(), {})
        await names.remember("b.org", ())
        await names.remember("a.org", ("10.0.0.1", "10.0.0.2"))
        await names.remember("b.org", ("10.0.0.3",))
        self.assertEqual(
            list((await names.load()).items()),
            [("b.org", ("10.0.0.3",)), ("a.org", ("10.0.0.1", "10.0.0.2"))],
        )


class FakeEntryPointsTests(EntryPointsContract, TestCase):
    async def make(self) -> Any:
        return FakeEntryPoints()


class PostgresEntryPointsTests(EntryPointsContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> Any:
        database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(database.close)
        await migrate(database)
        return PostgresEntryPoints(database)


class NamesContract(Contract):
    """`make` returns an IAddressesOfNames that knows localhost."""

    @abstractmethod
    async def make(self) -> IAddressesOfNames:
        """Given by each implementation."""

    async def test_names(self) -> None:
        """A name has addresses, or none."""
        names = await self.make()
        verifyObject(IAddressesOfNames, names)
        self.assertEqual(await names.of("localhost"), ("127.0.0.1",))
        for none in ("no-such-host.invalid", "-x"):
            self.assertEqual(await names.of(none), ())


class FakeNamesTests(NamesContract, TestCase):
    async def make(self) -> Any:
        names = FakeNames()
        names.names["localhost"] = ("127.0.0.1",)
        return names


class HostNamesTests(NamesContract, TestCase):
    async def make(self) -> Any:
        return HostNames(ProcessRunner(reactor))

    async def test_addresses(self) -> None:
        """An address is its own."""
        self.assertEqual(await (await self.make()).of("10.1.2.3"), ("10.1.2.3",))
