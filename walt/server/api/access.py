"""Enrolment, renewal and revocation."""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from walt.common.errors import Denied
from walt.rpc.commands import access as commands
from walt.server.domain.access.enrolment import Access
from walt.server.domain.access.model import Issued
from walt.server.domain.nodes.keys import UserKeys


class AccessApi(amp.CommandLocator):
    """Certificates; `serial` is that of the caller's, if it has one, `peer` its address.

    `host` is the name under which other machines reach this server, `reachable` whether they
    can.
    """

    def __init__(
        self, access: Access, keys: UserKeys, host: str, *, reachable: bool, serial: str | None,
        peer: str,
    ) -> None:
        self._access = access
        self._keys = keys
        self._host = host
        self._reachable = reachable
        self._serial = serial
        self._peer = peer
        self._tried = False

    @commands.EnrolAuthority.responder
    def authority(self) -> dict[str, Any]:
        """Return the certificate of the authority, whose digest is the second part of a token."""
        return {"authority": self._access.authority()}

    @commands.EnrolSign.responder
    async def enrol(self, code: str, request: str) -> dict[str, Any]:
        """Sign a request for who has the code of a token; a connection has one try."""
        if self._tried:
            raise Denied("one enrolment for each connection: connect again")
        self._tried = True
        return _answer(await self._access.enrol(code, request, self._peer))

    @commands.RenewCertificate.responder
    async def renew(self, request: str) -> dict[str, Any]:
        """Sign a request for the holder of the certificate that this connection has."""
        return _answer(await self._access.renew(self._serial or "", request))

    @commands.Invite.responder
    def invite(self, name: str, kind: str) -> dict[str, Any]:
        """Make a token with which a user or a machine enrols once, for some minutes."""
        invitation = self._access.invite(name, kind)
        return {
            "token": invitation.token, "host": self._host, "reachable": self._reachable,
            "expires": invitation.expires,
        }

    @commands.ShowCertificates.responder
    def show(self) -> dict[str, Any]:
        """Return one row for each certificate, those that were revoked included."""
        return {"rows": [
            {
                "serial": certificate.serial, "name": certificate.holder.name,
                "kind": certificate.holder.kind, "issued": certificate.issued,
                "expires": certificate.expires, "revoked": certificate.revoked,
            }
            for certificate in self._access.all()
        ]}

    @commands.RevokeCertificates.responder
    async def revoke(self, name: str) -> dict[str, Any]:
        """End the certificates of a holder, the connections that use them, and ssh keys."""
        count, keys = await self._access.shut_out(name, self._keys.drop)
        return {"count": count, "keys": keys}

    @commands.RotateAuthority.responder
    async def rotate(self) -> dict[str, Any]:
        """Make a new authority; certificates of the old one stay valid until they end."""
        await self._access.rotate()
        return {}


def _answer(issued: Issued) -> dict[str, Any]:
    certificate = issued.certificate
    return {
        "certificate": issued.pem, "authority": issued.authority, "name": certificate.holder.name,
        "kind": certificate.holder.kind, "expires": certificate.expires,
    }
