"""Enrolment, renewal and revocation (design D7)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable

from walt.common.errors import Busy, Denied, Invalid, LimitExceeded, NotFound
from walt.common.names import PLATFORM_USER, is_user_name
from walt.server.domain.access.codes import EnrolmentCodes
from walt.server.domain.access.interfaces import IAuthority, ICertificateStore
from walt.server.domain.access.model import KINDS, Certificate, Holder, Invitation, Issued
from walt.server.domain.events import Source
from walt.server.runtime.coroutines import unbroken

LIFETIME = 365 * 86400.0  # seconds that a certificate of a client is valid
# The token carries 160 bits of the authority's SHA-256, so that the first contact is verified.
FINGERPRINT_DIGITS = 40
# A certificate lasts a year, and each is kept for good.
MAX_RENEWALS, RENEWAL_PERIOD = 10, 3600.0  # of one holder, in so many seconds
SLOW = 2.0  # seconds until a wrong code is answered
TELL_AGAIN = 60.0  # seconds until wrong codes from the same address are logged again
MAX_STRANGERS = 1000  # addresses whose wrong codes are told apart


class Access:
    """The certificates of the platform, and who may get one.

    `authority` provides IAuthority, `store` ICertificateStore; `aside` runs a function
    that blocks, given with its argument, one at a time, and returns its result; `pause` waits
    so many seconds; `tell` logs one sentence; `ended` tells of each serial that is
    revoked or expires, so that open connections end too, `rotated` of a new authority.
    """

    def __init__(
        self, authority: IAuthority, store: ICertificateStore, codes: EnrolmentCodes,
        now: Callable[[], float], tell: Callable[[str], object],
        aside: Callable[[Callable[[float], object], float], Awaitable[object]],
        pause: Callable[[float], Awaitable[object]],
    ) -> None:
        self._aside = aside
        self._pause = pause
        self._authority = authority
        self._store = store
        self._codes = codes
        self._now = now
        self._tell = tell
        self._known: dict[str, Certificate] = {}
        self._revocations: Counter[str] = Counter()  # by name of a holder
        self._unstored: set[str] = set()  # serials whose revocation the store does not know yet
        self._issuing: Counter[str] = Counter()  # certificates on their way, by holder
        self._renewals: dict[str, deque[float]] = {}
        self._strangers: dict[str, tuple[float, int]] = {}
        self._looked = now()
        self.ended: Source[str] = Source()
        self.rotated: Source[[]] = Source()

    async def load(self) -> None:
        """Read what is remembered."""
        self._known = {certificate.serial: certificate for certificate in await self._store.load()}

    def authority(self) -> str:
        """Return the authority's certificate in PEM."""
        pem: str = self._authority.authority()
        return pem

    def all(self) -> list[Certificate]:
        """Return every certificate, by holder and age."""
        return sorted(
            self._known.values(),
            key=lambda certificate: (certificate.holder.name, certificate.issued),
        )

    def holder_of(self, serial: str) -> Holder | None:
        """Return whose certificate it is, None when it is revoked, expired or unknown."""
        found = self._known.get(serial)
        if found is None or found.revoked is not None or found.expires <= self._now():
            return None
        return found.holder

    def end_expired(self) -> None:
        """Tell of the certificates that have expired since the last look: connections end."""
        now = self._now()
        for certificate in self._known.values():
            if self._looked < certificate.expires <= now:
                self.ended.tell(certificate.serial)
        self._looked = now

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

    async def enrol(self, code: str, request: str, peer: str) -> Issued:
        """Make the certificate that an invitation promised, for somebody at an address.

        Raises Denied (late, when the code is wrong), Invalid.
        """
        try:
            holder = self._codes.redeem(code)
        except Denied:
            self._tell_wrong(peer)
            await self._pause(SLOW)
            raise
        issued = await self._issue(holder, request)
        self._tell(f"{holder.kind} {holder.name} enrolled, certificate {issued.certificate.serial}")
        return issued

    def _tell_wrong(self, peer: str) -> None:
        """Log a wrong code; those of the same address that follow are counted only."""
        now = self._now()
        told, count = self._strangers.get(peer, (0.0, 0))
        if now - told < TELL_AGAIN:
            self._strangers[peer] = (told, count + 1)
            return
        self._strangers = {
            stranger: (then, more) for stranger, (then, more) in self._strangers.items()
            if now - then < TELL_AGAIN
        }
        if len(self._strangers) >= MAX_STRANGERS:
            return
        self._strangers[peer] = (now, 0)
        more = f", and {count} before that were not logged" if count else ""
        self._tell(f"a wrong enrolment code was tried from {peer}{more}")

    async def renew(self, serial: str, request: str) -> Issued:
        """Make the successor of a valid certificate; the old one ends by itself.

        Raises Denied, Busy, LimitExceeded, Invalid.
        """
        holder = self.holder_of(serial)
        if holder is None:
            raise Denied("only the holder of a valid certificate can renew it")
        self._count_renewal(holder.name)
        return await self._issue(holder, request)

    def _count_renewal(self, name: str) -> None:
        if self._issuing[name]:
            raise Busy(f"a certificate for {name} is being made: try again in a moment")
        since = self._now() - RENEWAL_PERIOD
        for holder, moments in list(self._renewals.items()):
            while moments and moments[0] <= since:
                moments.popleft()
            if not moments:
                del self._renewals[holder]
        moments = self._renewals.setdefault(name, deque())
        if len(moments) >= MAX_RENEWALS:
            raise LimitExceeded(
                f"certificates of {name} were renewed {MAX_RENEWALS} times within an hour, which"
                " is the limit: try again later"
            )
        moments.append(self._now())

    @unbroken
    async def _issue(self, holder: Holder, request: str) -> Issued:
        # Whoever is revoked while this waits for the database must not come out of it.
        name = holder.name
        revocations = self._revocations[name]
        issued: Issued = self._authority.issue(holder, request, self._now(), LIFETIME)
        certificate = issued.certificate
        self._issuing[name] += 1
        try:
            await self._store.add(certificate)
        finally:
            self._issuing[name] -= 1
            if not self._issuing[name]:
                del self._issuing[name]
        if self._revocations[name] != revocations:
            await self._end([certificate])
            raise Denied(f"certificates of {name} were revoked meanwhile: enrol again")
        self._known[certificate.serial] = certificate
        return issued

    @unbroken
    async def revoke(self, name: str) -> int:
        """End all certificates of a holder at once, those on their way too; return how many.

        Raises NotFound. When the store fails, they are ended until the next start of the
        server: to be called again.
        """
        self._codes.cancel(name)
        moment = self._now()
        valid = [
            certificate for certificate in self._known.values()
            if certificate.holder.name == name and certificate.expires > moment
            and (certificate.revoked is None or certificate.serial in self._unstored)
        ]
        count = len(valid) + self._issuing[name]
        if not count:
            raise NotFound(
                f'nobody called "{name[:80]}" has a valid certificate;'
                " see: walt advanced show-certificates"
            )
        self._revocations[name] += 1
        await self._end(valid)
        self._tell(f"certificates of {name} revoked: {count}")
        return count

    @unbroken
    async def shut_out(
        self, name: str, drop_keys: Callable[[str], Awaitable[int]]
    ) -> tuple[int, int]:
        """Revoke what a holder has, the keys by which they are root on nodes included.

        Returns how many certificates and keys these were. Raises as `revoke`.
        """
        return await self.revoke(name), await drop_keys(name)

    async def _end(self, certificates: list[Certificate]) -> None:
        """Revoke these: here and for open connections at once, then in the store."""
        moment = self._now()
        serials = [certificate.serial for certificate in certificates]
        self._unstored.update(serials)
        for certificate in certificates:
            self._known[certificate.serial] = certificate._replace(revoked=moment)
            self.ended.tell(certificate.serial)
        if serials:
            await self._store.revoke(serials, moment)
        self._unstored.difference_update(serials)

    @unbroken
    async def rotate(self) -> None:
        """Make a new authority; holders learn it when they renew."""
        await self._aside(self._authority.rotate, self._now())
        self.rotated.tell()
        self._tell("the certificate authority of the platform was renewed")
