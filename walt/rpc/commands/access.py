"""Certificates of users and machines that come from elsewhere (design D7)."""

from __future__ import annotations

from twisted.protocols import amp

from walt.rpc import rows
from walt.rpc.arguments import Float, Integer, Json, Text
from walt.rpc.base import WaltCommand

PEM = 64 * 1024  # characters of a certificate or of a request


class EnrolAuthority(WaltCommand):
    """The platform's authority in PEM: first call of an enrolment, before any trust.

    The caller compares its SHA-256 with the second part of the token it was
    given, connects again verifying the server with it, then calls `enrol.sign`.
    """

    commandName = b"enrol.authority"
    side = "enrol"
    response = [(b"authority", Text(PEM))]


class EnrolSign(WaltCommand):
    """A certificate for the key of `request` (PKCS #10 in PEM), for the holder of the code.

    `code` is the first part of the token; it works once, within 10 minutes.
    `kind` tells whether the holder is a user or a machine.
    """

    commandName = b"enrol.sign"
    side = "enrol"
    arguments = [(b"code", Text(100)), (b"request", Text(PEM))]
    response = [
        (b"certificate", Text(PEM)), (b"authority", Text(PEM)), (b"name", Text(63)),
        (b"kind", Text(10)), (b"expires", Float()),
    ]


class RenewCertificate(WaltCommand):
    """The successor of the certificate that this connection was opened with."""

    commandName = b"cs.access.renew"
    side = "cs"
    arguments = [(b"request", Text(PEM))]
    response = [
        (b"certificate", Text(PEM)), (b"authority", Text(PEM)), (b"name", Text(63)),
        (b"kind", Text(10)), (b"expires", Float()),
    ]


class Invite(WaltCommand):
    """A token for the enrolment of a user or of a machine (`kind`).

    `host` is the name under which other machines reach this server, as far as
    the server knows; `reachable` is false when none can, as its network is apart;
    `expires` is in epoch seconds.
    """

    commandName = b"ss.access.invite"
    side = "ss"
    arguments = [(b"name", Text(63)), (b"kind", Text(10))]
    response = [
        (b"token", Text(200)), (b"host", Text(255)), (b"reachable", amp.Boolean()),
        (b"expires", Float()),
    ]


class ShowCertificates(WaltCommand):
    """Certificates ever made: serial, name, kind, issued, expires, revoked (epoch seconds)."""

    commandName = b"ss.access.show"
    side = "ss"
    response = [(b"rows", Json(rows.CERTIFICATES))]


class RevokeCertificates(WaltCommand):
    """End the certificates of a holder, the connections opened with them, and ssh keys."""

    commandName = b"ss.access.revoke"
    side = "ss"
    arguments = [(b"name", Text(63))]
    response = [(b"count", Integer()), (b"keys", Integer(optional=True))]


class RotateAuthority(WaltCommand):
    """Make a new authority; certificates of the old one stay valid until they expire."""

    commandName = b"ss.access.rotate"
    side = "ss"
