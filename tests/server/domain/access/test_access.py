"""Enrolment: one code, one holder, ten minutes; revocation at once."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.access import FakeAuthority, FakeCertificates
from walt.common.errors import Busy, Denied, Invalid, LimitExceeded, NotFound, Unavailable
from walt.server.domain.access.codes import MAX_PENDING, VALIDITY, EnrolmentCodes
from walt.server.domain.access.enrolment import (
    LIFETIME,
    MAX_RENEWALS,
    MAX_STRANGERS,
    RENEWAL_PERIOD,
    SLOW,
    TELL_AGAIN,
    Access,
)
from walt.server.domain.access.model import Certificate, Holder

PEER = "192.0.2.7"


class LateCertificates(FakeCertificates):
    """A store whose next answers come when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[None]] = []
        self.late = False

    async def _wait(self) -> None:
        if self.late:
            self.waiting.append(Deferred())
            await self.waiting[-1]

    async def add(self, certificate: Certificate) -> None:
        await self._wait()
        await super().add(certificate)

    async def revoke(self, serials: list[str], moment: float) -> None:
        await self._wait()
        await super().revoke(serials, moment)


class AccessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1e9
        self.told: list[str] = []
        self.ended: list[str] = []
        self.pauses: list[float] = []
        seeds = itertools.count()
        codes = EnrolmentCodes(
            lambda: self.now, lambda size: next(seeds).to_bytes(size, "big")
        )
        self.store = LateCertificates()
        self.access = Access(
            FakeAuthority(), self.store, codes, lambda: self.now, self.told.append, self.aside,
            self.pause,
        )
        self.access.ended.observe(self.ended.append)

    async def aside(self, work: Callable[[float], Any], now: float) -> Any:
        return work(now)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

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
        issued = self.done(self.access.enrol(code.upper(), "request", PEER))
        one = issued.certificate
        self.assertEqual((one.holder, one.expires), (Holder("ann", "user"), self.now + LIFETIME))
        self.assertEqual(self.access.holder_of(one.serial), Holder("ann", "user"))
        self.assertIn("ann", self.told[0])
        self.refused(self.access.enrol(code, "request", PEER), Denied)

    def test_codes(self) -> None:
        """Wrong, old and cancelled codes are refused with the same words; there are not many."""
        old = self.code()
        cancelled = self.code("bob")
        self.refused(self.access.revoke("bob"), NotFound)
        self.now += VALIDITY
        texts = {
            self.refused(self.access.enrol(code, "request", PEER), Denied)
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
            self.done(self.access.enrol(self.code(), "request", PEER)).certificate.serial
            for _ in range(2)
        ]
        other = self.done(self.access.enrol(self.code("bob"), "request", PEER)).certificate.serial
        self.assertEqual(self.done(self.access.revoke("ann")), 2)
        self.assertEqual(sorted(self.ended), sorted(serials))
        self.done(self.access.load())
        self.assertEqual([self.access.holder_of(one) for one in serials], [None, None])
        self.assertEqual(self.access.holder_of(other), Holder("bob", "user"))
        self.refused(self.access.revoke("ann"), NotFound)
        self.refused(self.access.renew(serials[0], "request"), Denied)

    def test_expiry_and_renewal(self) -> None:
        """A valid certificate is renewed for the same holder, an expired one is nobody's."""
        code = self.code("lab", "machine")
        first = self.done(self.access.enrol(code, "request", PEER)).certificate
        self.now += LIFETIME / 2
        second = self.done(self.access.renew(first.serial, "request")).certificate
        self.assertEqual(second.holder, Holder("lab", "machine"))
        self.access.end_expired()
        self.assertEqual(self.ended, [])
        self.now += LIFETIME / 2
        self.assertIsNone(self.access.holder_of(first.serial))
        for _ in range(2):  # told once
            self.access.end_expired()
            self.assertEqual(self.ended, [first.serial])
        self.assertIsNotNone(self.access.holder_of(second.serial))
        self.refused(self.access.renew(first.serial, "request"), Denied)
        self.refused(self.access.renew("", "request"), Denied)
        self.assertEqual([one.serial for one in self.access.all()], [first.serial, second.serial])

    def test_rotation(self) -> None:
        """The listeners are told of a new authority."""
        rotated: list[int] = []
        self.access.rotated.observe(lambda: rotated.append(1))
        self.done(self.access.rotate())
        self.assertEqual(rotated, [1])

    def start(self, work: Awaitable[Any]) -> Deferred[Any]:
        """Start what waits for the store."""
        return Deferred.fromCoroutine(work)  # type: ignore[arg-type]

    def valid(self) -> list[str]:
        """Return the serials that count now, and after the next start."""
        now = [one.serial for one in self.access.all() if self.access.holder_of(one.serial)]
        self.done(self.access.load())
        later = [one.serial for one in self.access.all() if self.access.holder_of(one.serial)]
        self.assertEqual(now, later)
        return now

    def test_revocation_of_what_is_on_its_way(self) -> None:
        """Neither an enrolment nor a renewal under way outlives a revocation."""
        first = self.done(self.access.enrol(self.code(), "request", PEER)).certificate
        for begin in (
            lambda: self.access.renew(first.serial, "request"),
            lambda: self.access.enrol(self.code(), "request", PEER),
        ):
            self.store.late = True
            begun = self.start(begin())
            revoking = self.start(self.access.revoke("ann"))
            # Nothing more begins while the revocation waits.
            self.refused(self.access.renew(first.serial, "request"), Denied)
            self.store.late = False
            for one in self.store.waiting:
                one.callback(None)
            self.store.waiting.clear()
            self.failureResultOf(begun, Denied)
            self.successResultOf(revoking)
            self.assertEqual(self.valid(), [])

    def test_revocation_that_the_store_misses(self) -> None:
        """Certificates end at once; the revocation can be asked for again."""
        first = self.done(self.access.enrol(self.code(), "request", PEER)).certificate
        self.store.late = True
        revoking = self.start(self.access.revoke("ann"))
        self.assertEqual(self.ended, [first.serial])
        self.store.waiting.pop().errback(Unavailable("the database was lost"))
        self.failureResultOf(revoking, Unavailable)
        self.assertIsNone(self.access.holder_of(first.serial))
        self.store.late = False
        self.assertEqual(self.done(self.access.revoke("ann")), 1)
        self.assertEqual(self.valid(), [])
        self.refused(self.access.revoke("ann"), NotFound)

    def test_rate_of_renewals(self) -> None:
        """One at a time, and not many, of one holder; others are not concerned."""
        ann, bob = (
            self.done(self.access.enrol(self.code(name), "request", PEER)).certificate.serial
            for name in ("ann", "bob")
        )
        self.store.late = True
        begun = self.start(self.access.renew(ann, "request"))
        self.refused(self.access.renew(ann, "request"), Busy)
        other = self.start(self.access.renew(bob, "request"))
        self.store.late = False
        for one in self.store.waiting:
            one.callback(None)
        self.successResultOf(begun)
        self.successResultOf(other)
        for _ in range(MAX_RENEWALS - 1):
            self.done(self.access.renew(ann, "request"))
        self.refused(self.access.renew(ann, "request"), LimitExceeded)
        self.done(self.access.renew(bob, "request"))
        self.now += RENEWAL_PERIOD
        self.done(self.access.renew(ann, "request"))

    def test_wrong_codes(self) -> None:
        """They are answered late and logged, not line by line; a right one is not late."""
        for _ in range(3):
            self.refused(self.access.enrol("aaaa", "request", PEER), Denied)
        self.refused(self.access.enrol("aaaa", "request", "192.0.2.8"), Denied)
        self.assertEqual(self.pauses, [SLOW] * 4)
        self.assertEqual(self.told, [
            f"a wrong enrolment code was tried from {PEER}",
            "a wrong enrolment code was tried from 192.0.2.8",
        ])
        self.now += TELL_AGAIN
        self.refused(self.access.enrol("aaaa", "request", PEER), Denied)
        self.assertEqual(
            self.told[2:],
            [f"a wrong enrolment code was tried from {PEER}, and 2 before that were not logged"],
        )
        for number in range(2 * MAX_STRANGERS):
            self.refused(self.access.enrol("aaaa", "request", f"2001:db8::{number:x}"), Denied)
        self.assertEqual(len(self.told), 2 + MAX_STRANGERS)
        self.pauses.clear()
        self.done(self.access.enrol(self.code(), "request", PEER))
        self.assertEqual(self.pauses, [])

    def test_requester_leaves(self) -> None:
        """Certificates end, the new authority is told of, and keys are taken, all the same."""
        token = self.access.invite("ann", "user").token.split(".")[0]
        self.done(self.access.enrol(token, "request", PEER))
        taken: list[str] = []

        async def drop(name: str) -> int:
            taken.append(name)
            return 1

        self.store.late = True
        going = Deferred.fromCoroutine(self.access.shut_out("ann", drop))
        going.cancel()
        self.assertNoResult(going)
        self.store.waiting[-1].callback(None)
        self.failureResultOf(going, CancelledError)
        self.assertEqual((taken, len(self.ended)), (["ann"], 1))
        self.assertIn("certificates of ann revoked: 1", self.told)

    def test_leaves_while_it_enrols(self) -> None:
        """The certificate is stored and known: it can be seen, and revoked."""
        token = self.access.invite("ann", "user").token.split(".")[0]
        self.store.late = True
        going = Deferred.fromCoroutine(self.access.enrol(token, "request", PEER))
        going.cancel()
        self.store.waiting[-1].callback(None)
        self.failureResultOf(going, CancelledError)
        self.assertEqual([one.holder.name for one in self.access.all()], ["ann"])
