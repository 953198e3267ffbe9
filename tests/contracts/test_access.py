"""What every IAuthority and ICertificateStore does: the fakes and the real ones."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.access import FakeAuthority, FakeCertificates
from tests.system import cluster
from walt.common.errors import Invalid
from walt.server.adapters.postgres.certificates import PostgresCertificates
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.migrate import migrate
from walt.server.adapters.tls.authority import DAY, SERVER_LIFETIME, Authority
from walt.server.domain.access.interfaces import IAuthority, ICertificateStore
from walt.server.domain.access.model import Certificate, Holder

NOW = 1.8e9
ANN = Holder("ann", "user")


def request(key: Any = None, name: str = "anything") -> str:
    """Return a certificate request in PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


class AuthorityContract(Contract):
    """`make` returns a fresh IAuthority."""

    @abstractmethod
    def make(self) -> IAuthority:
        """Given by each implementation; the class tells what."""

    def test_issue_and_rotate(self) -> None:
        """Serials differ; the authority told is the one that signs."""
        authority = self.make()
        verifyObject(IAuthority, authority)
        self.assertRegex(authority.fingerprint(), r"\A[0-9a-f]{64}\Z")
        first, second = (authority.issue(ANN, request(), NOW, 1000.0) for _ in range(2))
        self.assertNotEqual(first.certificate.serial, second.certificate.serial)
        self.assertEqual(first.certificate.holder, ANN)
        self.assertEqual(first.certificate.expires, NOW + 1000)
        self.assertEqual(first.authority, authority.authority())
        authority.rotate(NOW)
        self.assertNotEqual(first.authority, authority.authority())
        self.assertRaises(Invalid, authority.issue, ANN, "nonsense", NOW, 1000.0)


class FakeAuthorityTests(AuthorityContract, SynchronousTestCase):
    def make(self) -> Any:
        return FakeAuthority()


class RealAuthorityTests(AuthorityContract, SynchronousTestCase):
    def make(self) -> Authority:
        self.directory = Path(self.mktemp())
        authority = Authority(self.directory, ["server.example", "192.168.1.1"])
        self.assertTrue(authority.prepare(NOW))
        return authority

    def test_files(self) -> None:
        """Keys are private; nothing is made twice; other names or age make a new certificate."""
        authority = self.make()
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        for name in ("authority.key", "server.key"):
            self.assertEqual((self.directory / name).stat().st_mode & 0o777, 0o600)
        self.assertFalse(authority.prepare(NOW))
        self.assertTrue(authority.prepare(NOW + SERVER_LIFETIME - 30 * DAY))
        renamed = Authority(self.directory, ["other.example"])
        fingerprint = authority.fingerprint()
        self.assertTrue(renamed.prepare(NOW))
        self.assertEqual(renamed.fingerprint(), fingerprint)

    def test_requests(self) -> None:
        """Only the key counts; weak keys, forged and damaged requests are refused."""
        authority = self.make()
        issued = authority.issue(ANN, request(name="root"), NOW, DAY)
        made = x509.load_pem_x509_certificate(issued.pem.encode())
        self.assertEqual(
            [part.value for part in made.subject], ["ann", "user"]
        )
        self.assertFalse(
            made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        )
        good = request()
        lines = good.splitlines()
        lines[2] = lines[2][::-1]
        for bad in (
            request(rsa.generate_private_key(65537, 1024)), "\n".join(lines), "", good * 200,
            good.replace("REQUEST", "PRIVATE KEY"), "\0",
        ):
            self.assertRaises(Invalid, authority.issue, ANN, bad, NOW, DAY)

    def test_old_authorities(self) -> None:
        """They stay trusted while they are valid."""
        authority = self.make()
        authority.rotate(NOW)
        authority.rotate(NOW)
        self.assertEqual(authority.trusted().count("BEGIN CERTIFICATE"), 3)
        authority.rotate(NOW + 3651 * DAY)
        self.assertEqual(authority.trusted().count("BEGIN CERTIFICATE"), 1)


class StoreContract(Contract):
    """`make` returns an empty ICertificateStore."""

    @abstractmethod
    async def make(self) -> ICertificateStore:
        """Given by each implementation; the class tells what."""

    async def test_life(self) -> None:
        """What is added is loaded, revocations too."""
        store = await self.make()
        verifyObject(ICertificateStore, store)
        one = Certificate("a1", ANN, NOW, NOW + 10.5)
        two = Certificate("b2", Holder("lab", "machine"), NOW, NOW + 20)
        await store.add(one)
        await store.add(two)
        await store.revoke(["a1"], NOW + 5)
        self.assertEqual(
            sorted(await store.load(), key=lambda each: each.serial),
            [Certificate("a1", ANN, NOW, NOW + 10.5, NOW + 5), two],
        )


class FakeStoreTests(StoreContract, TestCase):
    async def make(self) -> Any:
        return FakeCertificates()


class PostgresStoreTests(StoreContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> Any:
        from twisted.internet import reactor

        database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(database.close)
        await migrate(database)
        return PostgresCertificates(database)
