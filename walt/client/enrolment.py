"""The certificates that let this account use servers of other machines (design D7).

`~/.walt/servers/HOST/` holds `key.pem`, `certificate.pem`, `authority.pem` and
`enrolment.json`; only its owner may read it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import socket
import ssl
import time
from pathlib import Path

from walt.client import tls
from walt.client.connection import Connection, open_tcp
from walt.client.errors import Failure
from walt.client.formats import pip_install
from walt.common.errors import in_words
from walt.common.files import write_durable
from walt.common.ports import RPC

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

WARNING_DAYS = 30
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")
_TOKEN = re.compile(r"([a-z2-7-]{16,24})\.([0-9a-f]{40})")
# RFC 7468 §5. What follows a first block would be trusted too: it must be the only one.
_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----\s*"
)


def directory(host: str) -> str:
    """Return where the files for a server are. Raises Failure for what is no host."""
    if not _HOST.fullmatch(host):
        raise Failure(f"{host[:80]!r} is not the name or the address of a server")
    return os.path.join(os.path.expanduser("~"), ".walt", "servers", host.replace(":", "_"))


def enrolled(host: str) -> bool:
    """Tell whether this account has a certificate for a server."""
    return os.path.exists(os.path.join(directory(host), "certificate.pem"))


def context(host: str) -> ssl.SSLContext:
    """Return the TLS settings for a server this account is enrolled at. Raises Failure."""
    place = directory(host)
    try:
        made = _verifying(os.path.join(place, "authority.pem"))
        made.load_cert_chain(
            os.path.join(place, "certificate.pem"), os.path.join(place, "key.pem")
        )
    except (OSError, ssl.SSLError) as error:
        raise Failure(
            f"the certificate in {place} cannot be used ({in_words(error)}); enrol again with the"
            " command that `walt advanced add-user` prints on the server"
        ) from None
    return made


def _verifying(authority: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies names and chains
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_verify_locations(authority)
    return made


def _facts(host: str) -> dict[str, Any]:
    """Return what is remembered of an enrolment, empty without one."""
    try:
        with open(os.path.join(directory(host), "enrolment.json"), encoding="utf-8") as stream:
            facts = json.load(stream)
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def user(host: str) -> str | None:
    """Return the user that the certificate for a server names, if it names one."""
    facts = _facts(host)
    return str(facts.get("name")) if facts.get("kind") == "user" else None


def warning(host: str) -> str | None:
    """Return what to tell when the certificate for a server expires soon, or has expired."""
    expires = _facts(host).get("expires")
    if not isinstance(expires, (int, float)):
        return None
    days = int((expires - time.time()) // 86400)
    if days >= WARNING_DAYS:
        return None
    if days < 0:
        return (
            f"your certificate for {host} has expired: enrol again, with the command that"
            " `walt advanced add-user` prints on the server"
        )
    return f"your certificate for {host} expires in {days} days: run walt advanced renew"


def enrol(host: str, token: str) -> dict[str, Any]:
    """Get a certificate with a one-time token; return what is remembered of it.

    The token's second part is checked against the server's authority before
    anything secret is sent. Raises Failure, Refused.
    """
    parsed = _TOKEN.fullmatch(token.strip().lower())
    if parsed is None:
        raise Failure("this is not an enrolment token: it looks like abcd-efgh-ijkl-mnop.0123…")
    code, fingerprint = parsed[1], parsed[2]
    place = directory(host)
    first = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The first contact is verified by the token itself.
    first.check_hostname = False
    first.verify_mode = ssl.CERT_NONE
    encoded = _encoded(_text(_call(host, first, "enrol.authority"), "authority"))
    if encoded is None or not hashlib.sha256(encoded).hexdigest().startswith(fingerprint):
        raise Failure(
            f"the server at {host} is not the one that made this token: nothing was sent to it"
        )
    os.makedirs(place, mode=0o700, exist_ok=True)
    os.chmod(place, 0o700)
    # The bytes that were checked, and nothing else that the answer held.
    authority = ssl.DER_cert_to_PEM_cert(encoded)
    _write(place, "authority.pem", authority)
    key, request = _request()
    answer = _call(
        host, _verifying(os.path.join(place, "authority.pem")), "enrol.sign", code=code,
        request=request,
    )
    return _remember(host, key, answer, authority)


def renew(host: str, session: Connection) -> dict[str, Any]:
    """Replace the certificate for a server by a fresh one. Raises Failure, Refused."""
    key, request = _request()
    answer = session.call("cs.access.renew", request=request)
    session.close()
    return _remember(host, key, answer, _single(host, answer, "authority"))


def _call(host: str, settings: ssl.SSLContext, command: str, **values: Any) -> dict[bytes, bytes]:
    connection = Connection(tls.wrap(open_tcp((host, RPC)), settings, host))
    try:
        return connection.call(command, **values)
    finally:
        connection.close()


def _request() -> tuple[str, str]:
    """Return a new private key and a request for its certificate, both in PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise Failure(
            "enrolment needs the library cryptography in the Python that runs walt; run:"
            f" {pip_install('cryptography')}"
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([
        x509.NameAttribute(x509.NameOID.COMMON_NAME, socket.gethostname()[:64] or "walt")
    ])
    request = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    return (
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        request.public_bytes(serialization.Encoding.PEM).decode(),
    )


def _encoded(text: str) -> bytes | None:
    """Return a certificate in DER; None for what is not one certificate and nothing else."""
    found = _CERTIFICATE.fullmatch(text)
    if found is None:
        return None
    try:
        return base64.b64decode("".join(found[1].split()), validate=True)
    except binascii.Error:
        return None


def _single(host: str, answer: dict[bytes, bytes], name: str) -> str:
    """Return the one certificate of an answer in PEM. Raises Failure."""
    encoded = _encoded(_text(answer, name))
    if encoded is None:
        raise Failure(
            f"the server at {host} answered with something other than one certificate: nothing"
            " was changed; ask whoever runs it"
        )
    return ssl.DER_cert_to_PEM_cert(encoded)


def _remember(
    host: str, key: str, answer: dict[bytes, bytes], authority: str
) -> dict[str, Any]:
    place = directory(host)
    certificate = _single(host, answer, "certificate")
    facts = {
        "name": _text(answer, "name"), "kind": _text(answer, "kind"),
        "expires": float(_text(answer, "expires")),
    }
    for file, text in (
        ("key.pem", key), ("certificate.pem", certificate), ("authority.pem", authority),
        ("enrolment.json", json.dumps(facts)),
    ):
        _write(place, file, text)
    return facts


def _text(answer: dict[bytes, bytes], name: str) -> str:
    return answer[name.encode()].decode()


def _write(place: str, name: str, text: str) -> None:
    """Replace a file that only its owner may read, at once, and on the disk."""
    write_durable(Path(place, name), text, 0o600)
