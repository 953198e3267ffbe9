"""What the access rules need of the outside world."""

from __future__ import annotations

from zope.interface import Interface

from walt.server.domain.access.model import Certificate, Holder, Issued
from walt.server.domain.access.web_model import WebSession


class IAuthority(Interface):
    """The platform's own certificate authority."""

    def fingerprint() -> str:
        """Return the SHA-256 of the authority's certificate, in lower-case hexadecimal."""

    def authority() -> str:
        """Return the authority's certificate in PEM."""

    def issue(holder: Holder, request: str, now: float, lifetime: float) -> Issued:
        """Sign the key of a certificate request (PKCS #10 in PEM, RFC 2986).

        Of the request only the key counts; `lifetime` is in seconds. Raises
        Invalid when the request cannot be read, is not signed by its own key, or
        the key is weak.
        """

    def rotate(now: float) -> None:
        """Make a new authority; what the old one signed stays valid until it expires.

        Waits for the disk: to be called in a thread, one call at a time.
        """


class ICertificateStore(Interface):
    """The certificates ever made."""

    async def load() -> list[Certificate]:
        """Return all of them."""

    async def add(certificate: Certificate) -> None:
        """Remember a new one."""

    async def revoke(serials: list[str], moment: float) -> None:
        """Remember that certificates are worth nothing from `moment` on (epoch seconds)."""


class IWebSessionStore(Interface):
    """The sessions of browsers, kept for the next server."""

    async def load() -> list[WebSession]:
        """Return those saved last; none where they cannot be read."""

    async def save(sessions: list[WebSession]) -> None:
        """Replace what is kept. Raises Unavailable."""


class IPeerAccounts(Interface):
    """The accounts at the other end of connections of the loopback."""

    def uid_of(port: int, own_port: int) -> int | None:
        """Return the account whose connection comes from a port of 127.0.0.1 to one of ours; None
        when that end is closed, or nobody can tell.
        """
