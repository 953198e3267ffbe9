"""Enrolment: one code, one holder, ten minutes; revocation at once."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.access import FakeAuthority, FakeCertificates
from walt.common.errors import Denied, Invalid, LimitExceeded, NotFound
from walt.server.domain.access.codes import MAX_PENDING, VALIDITY, EnrolmentCodes
from walt.server.domain.access.model import Holder
from walt.server.domain.access.service import LIFETIME, Access


class AccessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1e9
        self.told: list[str] = []
        self.ended: list[str] = []
        seeds = itertools.count()
        codes = EnrolmentCodes(
            lambda: self.now, lambda size: next(seeds).to_bytes(size, "big")
        )
        self.store = FakeCertificates()
        self.access = Access(
            FakeAuthority(), self.store, codes, lambda: self.now, self.told.append, self.aside
        )
        self.access.revoked = self.ended.append

    async def aside(self, work: Callable[[float], Any], now: float) -> Any:
        return work(now)

    def done(self, work: Awaitable[Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))  # type: ignore[arg-type]

    def refused(self, work: Awaitable[Any], *errors: type[Exception]) -> str:
        failure = self.failureResultOf(
            Deferred.fromCoroutine(work), *errors  # type: ignore[arg-type]
        )
        return str(failure.value)

    def code(self, name: str = "ann", kind: str = "user") -> str:
        return self.access.invite(name, kind).token.split(".")[0]

    def test_enrolment(self) -> None:
        """The holder is the one invited, the code is used up, the log tells."""
        invitation = self.access.invite("ann", "user")
        code, fingerprint = invitation.token.split(".")
        self.assertTrue(FakeAuthority.digest.startswith(fingerprint))
        self.assertEqual(invitation.expires, self.now + VALIDITY)
        issued = self.done(self.access.enrol(code.upper(), "request"))
        one = issued.certificate
        self.assertEqual((one.holder, one.expires), (Holder("ann", "user"), self.now + LIFETIME))
        self.assertEqual(self.access.holder_of(one.serial), Holder("ann", "user"))
        self.assertIn("ann", self.told[0])
        self.refused(self.access.enrol(code, "request"), Denied)

    def test_codes(self) -> None:
        """Wrong, old and cancelled codes are refused with the same words; there are not many."""
        old = self.code()
        cancelled = self.code("bob")
        self.refused(self.access.revoke("bob"), NotFound)
        self.now += VALIDITY
        texts = {
            self.refused(self.access.enrol(code, "request"), Denied)
            for code in (old, cancelled, "aaaa-bbbb-cccc-dddd", "", "\0")
        }
        self.assertEqual(len(texts), 1)
        for _ in range(MAX_PENDING):
            self.code()
        self.assertRaises(LimitExceeded, self.code)
        self.now += VALIDITY
        self.code()

    def test_names(self) -> None:
        """Those of users, in both kinds."""
        for name, kind in (
            ("", "user"), ("Ann", "user"), ("-x", "user"), ("waltplatform", "user"),
            ("a" * 64, "machine"), ("ann", "god"), ("a\nb", "machine"),
        ):
            self.assertRaises(Invalid, self.access.invite, name, kind)

    def test_revocation(self) -> None:
        """All certificates of a holder end, open connections too, and stay ended."""
        serials = [
            self.done(self.access.enrol(self.code(), "request")).certificate.serial
            for _ in range(2)
        ]
        other = self.done(self.access.enrol(self.code("bob"), "request")).certificate.serial
        self.assertEqual(self.done(self.access.revoke("ann")), 2)
        self.assertEqual(sorted(self.ended), sorted(serials))
        self.done(self.access.load())
        self.assertEqual([self.access.holder_of(one) for one in serials], [None, None])
        self.assertEqual(self.access.holder_of(other), Holder("bob", "user"))
        self.refused(self.access.revoke("ann"), NotFound)
        self.refused(self.access.renew(serials[0], "request"), Denied)

    def test_expiry_and_renewal(self) -> None:
        """A valid certificate is renewed for the same holder, an expired one is nobody's."""
        first = self.done(self.access.enrol(self.code("lab", "machine"), "request")).certificate
        self.now += LIFETIME / 2
        second = self.done(self.access.renew(first.serial, "request")).certificate
        self.assertEqual(second.holder, Holder("lab", "machine"))
        self.now += LIFETIME / 2
        self.assertIsNone(self.access.holder_of(first.serial))
        self.assertIsNotNone(self.access.holder_of(second.serial))
        self.refused(self.access.renew(first.serial, "request"), Denied)
        self.refused(self.access.renew("", "request"), Denied)
        self.assertEqual([one.serial for one in self.access.all()], [first.serial, second.serial])

    def test_rotation(self) -> None:
        """The listeners are told of a new authority."""
        rotated: list[int] = []
        self.access.rotated = lambda: rotated.append(1)
        self.done(self.access.rotate())
        self.assertEqual(rotated, [1])
