"""TLS settings of the listeners: version 1.3 only, a client certificate if there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

# Without renegotiation, without compression, and with forward secrecy (RFC 8446).
_MINIMUM = SSL.TLS1_3_VERSION


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """Makes the server's side of TLS connections; `reload` takes new files without downtime."""

    def __init__(self) -> None:
        self._context: SSL.Context | None = None

    def reload(self, key: Path, chain: Path, trusted: str) -> None:
        """Use these files for new connections; `trusted` holds authorities of clients in PEM."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(_MINIMUM)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # An idle connection keeps no buffers: 34 KiB each.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        # A ticket would carry an identity past its revocation.
        context.set_options(SSL.OP_NO_TICKET)
        context.use_certificate_chain_file(str(chain))
        context.use_privatekey_file(str(key))
        context.check_privatekey()
        store = context.get_cert_store()
        assert store is not None
        names = []
        for certificate in _certificates(trusted):
            store.add_cert(certificate)
            names.append(certificate.get_subject())
        context.set_client_ca_list(names)
        # Who has no certificate may come in, for an enrolment; a foreign one may not.
        context.set_verify(SSL.VERIFY_PEER, lambda connection, shown, error, depth, ok: bool(ok))
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Return the OpenSSL connection of a new peer."""
        assert self._context is not None
        return SSL.Connection(self._context, None)


def _certificates(text: str) -> list[crypto.X509]:
    end = "-----END CERTIFICATE-----\n"
    return [
        crypto.load_certificate(crypto.FILETYPE_PEM, (part + end).encode())
        for part in text.split(end) if part.strip()
    ]
