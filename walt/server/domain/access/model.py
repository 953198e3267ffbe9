"""Holders of certificates, and what is remembered of each certificate."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["user", "machine"]
KINDS: tuple[Kind, ...] = ("user", "machine")


class Holder(NamedTuple):
    """Whom a certificate was made for.

    A `user` acts under the name of the certificate. On a `machine`, which
    several people share, each client states its user, as on the server itself.
    """

    name: str
    kind: Kind


class Certificate(NamedTuple):
    """A certificate of this platform; times are epoch seconds, the serial is hexadecimal."""

    serial: str
    holder: Holder
    issued: float
    expires: float
    revoked: float | None = None


class Invitation(NamedTuple):
    """What makes one enrolment possible: the token to type, and when it ends (epoch seconds)."""

    holder: Holder
    token: str
    expires: float


class Issued(NamedTuple):
    """A new certificate in PEM, and the authority that its holder trusts from now on."""

    certificate: Certificate
    pem: str
    authority: str
