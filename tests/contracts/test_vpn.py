"""What the stores and the authority of the VPN do: the fakes, PostgreSQL, ssh-keygen."""

from __future__ import annotations

import subprocess
from abc import abstractmethod
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.vpn import FakeAuthority, FakeVpnKeys
from tests.server.domain.nodes.test_keys import key
from tests.system import cluster
from tests.system.netns import short_dir
from walt.common.errors import Invalid, NotFound
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.migrate import migrate
from walt.server.adapters.postgres.vpn_keys import PostgresVpnKeys
from walt.server.adapters.vpn.authority import SshAuthority
from walt.server.domain.devices.model import Device
from walt.server.domain.vpn.model import VpnKey
from walt.server.domain.vpn.ports import IVpnAuthority, IVpnKeys
from walt.server.runtime.process import ProcessRunner

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
        (device,) = await self.devices.load()
        self.assertEqual(device.vpn_mac, ONE.vpn_mac)
        await self.devices.forget([BOARD.mac], {})
        self.assertEqual(await self.devices.load(), [])
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
