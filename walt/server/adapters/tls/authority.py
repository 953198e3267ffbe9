"""The certificate authority of the platform, in files of the state directory.

All keys are ECDSA P-256. `authority.key` holds the key that signs and its
certificate; after a rotation `trusted.pem` keeps the older authorities, whose certificates stay
valid, and `cross.pem` the new authority's key signed by the old one, so that
a client that knows only the old one accepts the server (RFC 5280 §3.2).
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from zope.interface import implementer

from walt.common.errors import Invalid, Unavailable, in_words
from walt.common.files import write_durable
from walt.server.domain.access.interfaces import IAuthority
from walt.server.domain.access.model import Certificate, Holder, Issued

DAY = 86400.0
AUTHORITY_LIFETIME = 3650 * DAY
SERVER_LIFETIME = 365 * DAY
SERVER_MARGIN = 60 * DAY  # what is left when the server's certificate is made anew
SLACK = 300.0  # seconds that clocks of clients may be late
MAX_REQUEST = 16 * 1024
MIN_RSA_BITS = 2048


@implementer(IAuthority)
class Authority:
    """Signs certificates; `directory` is private to root, `names` are the server's.

    A name is a host name or an IP address. `prepare` and `rotate` write keys, and
    wait for the disk: they belong into a thread. The others may be called meanwhile.
    """

    def __init__(self, directory: Path, names: Iterable[str]) -> None:
        self._directory = directory
        self._names = sorted(set(names))

    # -- files -----------------------------------------------------------

    @property
    def server_files(self) -> tuple[Path, Path]:
        """The server's key, and its certificate with what follows it in the chain."""
        return self._directory / "server.key", self._directory / "server.pem"

    def trusted(self) -> str:
        """Return every authority whose certificates are accepted, in PEM, the newest first."""
        older = self._directory / "trusted.pem"
        return self.authority() + (older.read_text() if older.exists() else "")

    def prepare(self, now: float) -> bool:
        """Make what is missing, old, or for other names; tell whether the server's changed.

        Raises Unavailable when files cannot be read or written.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
            if not (self._directory / "authority.key").exists():
                self._make_authority(now)
            if self._server_is_good(now):
                return False
            self._make_server(now)
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"the certificates in {self._directory} cannot be used: {in_words(error)}; repair"
                " or remove this directory (then clients have to enrol again)"
            ) from None
        return True

    def authority(self) -> str:
        """Return the authority's certificate in PEM."""
        return _pem(self._signer()[1])

    def fingerprint(self) -> str:
        """Return the SHA-256 of the authority's certificate, in lower-case hexadecimal."""
        return self._signer()[1].fingerprint(hashes.SHA256()).hex()

    def rotate(self, now: float) -> None:
        """Make a new authority; what the old one signed stays valid until it expires."""
        (old_key, old), still_trusted = self._signer(), []
        for certificate in x509.load_pem_x509_certificates(self.trusted().encode()):
            if certificate.not_valid_after_utc.timestamp() > now:
                still_trusted.append(_pem(certificate))
        write_durable(self._directory / "trusted.pem", "".join(still_trusted))
        key = ec.generate_private_key(ec.SECP256R1())
        new = _authority_certificate(key, now)
        cross = _certificate(
            new.subject, old.subject, key.public_key(), now - SLACK,
            old.not_valid_after_utc.timestamp(),
        ).add_extension(x509.BasicConstraints(True, 0), True).sign(old_key, hashes.SHA256())
        write_durable(self._directory / "cross.pem", _pem(cross))
        self._write_authority(key, new)
        self._make_server(now)

    def _write_authority(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> None:
        # Key and certificate change at once: they are one file.
        write_durable(self._directory / "authority.key", _key_pem(key) + _pem(certificate), 0o600)

    def _make_authority(self, now: float) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._write_authority(key, _authority_certificate(key, now))

    def _signer(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """Return key and certificate; read at once, they belong together."""
        content = (self._directory / "authority.key").read_bytes()
        key = serialization.load_pem_private_key(content, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("authority.key is not an elliptic curve key")
        return key, x509.load_pem_x509_certificate(content)

    # -- the server's own certificate ----------------------------------------

    def _server_is_good(self, now: float) -> bool:
        key_file, file = self.server_files
        if not (key_file.exists() and file.exists()):
            return False
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            certificate.not_valid_after_utc.timestamp() - now > SERVER_MARGIN
            and certificate.issuer == self._signer()[1].subject
            and names == _alternative_names(self._names)
        )

    def _make_server(self, now: float) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        signer, authority = self._signer()
        certificate = _certificate(
            _name("WalT server"), authority.subject, key.public_key(), now - SLACK,
            now + SERVER_LIFETIME,
        ).add_extension(
            _alternative_names(self._names), False
        ).add_extension(
            x509.BasicConstraints(False, None), True
        ).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False
        ).sign(signer, hashes.SHA256())
        key_file, file = self.server_files
        cross = self._directory / "cross.pem"
        write_durable(key_file, _key_pem(key), 0o600)
        write_durable(file, _pem(certificate) + (cross.read_text() if cross.exists() else ""))

    # -- clients -----------------------------------------------------------

    def issue(self, holder: Holder, request: str, now: float, lifetime: float) -> Issued:
        """Sign the key of a certificate request."""
        key = _key_of(request)
        expires = now + lifetime
        signer, authority = self._signer()
        certificate = _certificate(
            _name(holder.name, holder.kind), authority.subject, key, now - SLACK, expires
        ).add_extension(
            x509.BasicConstraints(False, None), True
        ).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False
        ).sign(signer, hashes.SHA256())
        serial = f"{certificate.serial_number:x}"
        return Issued(
            Certificate(serial, holder, now, expires), _pem(certificate), _pem(authority)
        )


def _key_of(request: str) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    if len(request) > MAX_REQUEST:
        raise Invalid("the certificate request is too long")
    try:
        parsed = x509.load_pem_x509_csr(request.encode())
        genuine, key = parsed.is_signature_valid, parsed.public_key()
    except Exception:
        # The parser documents ValueError and raises more on damaged input.
        raise Invalid("the certificate request cannot be read") from None
    if not genuine:
        raise Invalid("the certificate request is not signed by its own key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
        return key  # type: ignore[return-value]
    raise Invalid(
        f"the key of the certificate request is too weak: use ECDSA, Ed25519, or RSA with"
        f" {MIN_RSA_BITS} bits"
    )


def _name(common: str, unit: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if unit is not None:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name(parts)


def _moment(epoch: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: object, begins: float, ends: float
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer, subject_name=subject, public_key=key,  # type: ignore[arg-type]
        serial_number=x509.random_serial_number(),
        not_valid_before=_moment(begins), not_valid_after=_moment(ends),
    )


def _authority_certificate(key: ec.EllipticCurvePrivateKey, now: float) -> x509.Certificate:
    # Each authority has a name of its own: chains are built by names.
    identity = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:12]
    subject = _name(f"WalT platform {identity}")
    return _certificate(
        subject, subject, key.public_key(), now - SLACK, now + AUTHORITY_LIFETIME
    ).add_extension(
        x509.BasicConstraints(True, None), True
    ).add_extension(
        x509.KeyUsage(
            key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        ), True,
    ).sign(key, hashes.SHA256())


def _alternative_names(names: Iterable[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
