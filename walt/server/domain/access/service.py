"""Enrolment, renewal and revocation (design D7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from walt.common.errors import Denied, Invalid, NotFound
from walt.common.names import PLATFORM_USER, is_user_name
from walt.server.domain.access.codes import EnrolmentCodes
from walt.server.domain.access.model import KINDS, Certificate, Holder, Invitation, Issued

LIFETIME = 365 * 86400.0  # seconds that a certificate of a client is valid
# The token carries 160 bits of the authority's SHA-256, so that the first contact is verified.
FINGERPRINT_DIGITS = 40


class Access:
    """The certificates of the platform, and who may get one.

    `authority` provides IAuthority, `store` ICertificateStore; `aside` runs a function
    that blocks, given with its argument, one at a time, and returns its result; `tell` logs
    one sentence; `revoked` is called with each serial that ends, so that open
    connections end too, `rotated` when there is a new authority.
    """

    def __init__(
        self, authority: Any, store: Any, codes: EnrolmentCodes, now: Callable[[], float],
        tell: Callable[[str], object],
        aside: Callable[[Callable[[float], Any], float], Awaitable[Any]],
    ) -> None:
        self._aside = aside
        self._authority = authority
        self._store = store
        self._codes = codes
        self._now = now
        self._tell = tell
        self._known: dict[str, Certificate] = {}
        self.revoked: Callable[[str], object] = lambda serial: None
        self.rotated: Callable[[], object] = lambda: None

    async def load(self) -> None:
        """Read what is remembered."""
        self._known = {one.serial: one for one in await self._store.load()}

    def authority(self) -> str:
        """Return the authority's certificate in PEM."""
        pem: str = self._authority.authority()
        return pem

    def all(self) -> list[Certificate]:
        """Return every certificate, by holder and age."""
        return sorted(self._known.values(), key=lambda one: (one.holder.name, one.issued))

    def holder_of(self, serial: str) -> Holder | None:
        """Return whose certificate it is, None when it is revoked, expired or unknown."""
        found = self._known.get(serial)
        if found is None or found.revoked is not None or found.expires <= self._now():
            return None
        return found.holder

    def invite(self, name: str, kind: str) -> Invitation:
        """Let a user or a machine enrol once. Raises Invalid, LimitExceeded."""
        if kind not in KINDS:
            raise Invalid("certificates are for a user or for a machine")
        if not is_user_name(name) or name == PLATFORM_USER:
            raise Invalid(
                f'"{name[:80]}" cannot be the name of a {kind}: use lower-case letters, digits'
                f" and dashes; {PLATFORM_USER} is reserved"
            )
        holder = Holder(name, "user" if kind == "user" else "machine")
        code, expires = self._codes.create(holder)
        return Invitation(
            holder, f"{code}.{self._authority.fingerprint()[:FINGERPRINT_DIGITS]}", expires
        )

    async def enrol(self, code: str, request: str) -> Issued:
        """Make the certificate that an invitation promised. Raises Denied, Invalid."""
        holder = self._codes.redeem(code)
        issued = await self._issue(holder, request)
        self._tell(f"{holder.kind} {holder.name} enrolled, certificate {issued.certificate.serial}")
        return issued

    async def renew(self, serial: str, request: str) -> Issued:
        """Make the successor of a valid certificate; the old one ends by itself. Raises Denied."""
        holder = self.holder_of(serial)
        if holder is None:
            raise Denied("only the holder of a valid certificate can renew it")
        return await self._issue(holder, request)

    async def _issue(self, holder: Holder, request: str) -> Issued:
        issued: Issued = self._authority.issue(holder, request, self._now(), LIFETIME)
        await self._store.add(issued.certificate)
        self._known[issued.certificate.serial] = issued.certificate
        return issued

    async def revoke(self, name: str) -> int:
        """End all certificates of a holder at once; return how many. Raises NotFound."""
        self._codes.cancel(name)
        moment = self._now()
        valid = [
            one for one in self._known.values()
            if one.holder.name == name and one.revoked is None and one.expires > moment
        ]
        if not valid:
            raise NotFound(
                f'nobody called "{name[:80]}" has a valid certificate;'
                " see: walt advanced show-certificates"
            )
        await self._store.revoke([one.serial for one in valid], moment)
        for one in valid:
            self._known[one.serial] = Certificate(
                one.serial, one.holder, one.issued, one.expires, moment
            )
            self.revoked(one.serial)
        self._tell(f"certificates of {name} revoked: {len(valid)}")
        return len(valid)

    async def rotate(self) -> None:
        """Make a new authority; holders learn it when they renew."""
        await self._aside(self._authority.rotate, self._now())
        self.rotated()
        self._tell("the certificate authority of the platform was renewed")
