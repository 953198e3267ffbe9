"""Browsers: a link leads in once, two secrets show who it is, and everything ends."""

from __future__ import annotations

import itertools

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.access import FakeWebSessions
from walt.common.errors import Denied, LimitExceeded
from walt.server.domain.access import web_links
from walt.server.domain.access.web_links import MAX_PENDING, VALIDITY
from walt.server.domain.access.web_model import Entry, Secrets, Way
from walt.server.domain.access.web_sessions import IDLE, LONGEST, MAX_OF_USER, WebSessions

HERE = "http://127.0.0.1:12381"


class WebSessionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1e9
        self.seeds = itertools.count(1)
        self.store = FakeWebSessions()
        self.bad: set[str] = set()
        self.told: list[str] = []
        self.ended: list[str] = []
        self.sessions = self.make()

    def make(self, **limits: int) -> WebSessions:
        """Return the rules of one server."""
        seeds = self.seeds
        made = WebSessions(
            self.store, lambda: self.now, lambda size: next(seeds).to_bytes(size, "big"),
            lambda serial: serial not in self.bad, self.told.append, **limits,
        )
        made.ended.observe(self.ended.append)
        return made

    def enter(self, user: str = "ann", serial: str | None = None) -> Secrets:
        """Make a link and use it."""
        code, _ = self.sessions.invite(Entry(user, serial, HERE))
        return self.sessions.begin(code, HERE, None)

    def test_a_link_works_once(self) -> None:
        code, expires = self.sessions.invite(Entry("ann", None, HERE))
        self.assertEqual(expires, self.now + VALIDITY)
        self.assertGreaterEqual(len(bytes.fromhex(code)) * 8, 128)
        secrets = self.sessions.begin(code, HERE, None)
        self.assertEqual(secrets.session.entry.user, "ann")
        self.assertRaises(Denied, self.sessions.begin, code, HERE, None)
        self.assertEqual(self.told, [f"ann opened the web pages at {HERE}"])

    def test_a_link_expires(self) -> None:
        code, _ = self.sessions.invite(Entry("ann", None, HERE))
        self.now += VALIDITY
        self.assertRaises(Denied, self.sessions.begin, code, HERE, None)

    def test_a_link_is_for_one_origin(self) -> None:
        code, _ = self.sessions.invite(Entry("ann", None, HERE))
        self.assertRaises(Denied, self.sessions.begin, code, "http://127.0.0.1:1", None)
        self.assertRaises(Denied, self.sessions.begin, code, HERE, None)

    def test_links_are_limited(self) -> None:
        first, _ = self.sessions.invite(Entry("ann", None, HERE))
        for _ in range(web_links.MAX_OF_USER):
            self.sessions.invite(Entry("ann", None, HERE))
        self.assertRaises(Denied, self.sessions.begin, first, HERE, None)
        for number in range(MAX_PENDING - web_links.MAX_OF_USER):
            self.sessions.invite(Entry(f"user{number}", None, HERE))
        with self.assertRaises(LimitExceeded):
            self.sessions.invite(Entry("bob", None, HERE))
        self.now += VALIDITY
        self.sessions.invite(Entry("bob", None, HERE))

    def test_both_secrets_are_needed(self) -> None:
        ann, bob = self.enter(), self.enter("bob")
        found = self.sessions.find(ann.cookie, ann.key, HERE, None)
        assert found is not None
        self.assertEqual(found.entry.user, "ann")
        self.assertIsNone(self.sessions.find(ann.cookie, bob.key, HERE, None))
        self.assertIsNone(self.sessions.find(ann.cookie, "", HERE, None))
        self.assertIsNone(self.sessions.find("", ann.key, HERE, None))
        self.assertIsNone(self.sessions.find(ann.cookie, ann.key, "http://127.0.0.1:80", None))
        self.assertIsNone(self.sessions.find(found.cookie, found.key, HERE, None))  # the digests

    def test_the_way_in(self) -> None:
        """A relay of one user is not that of another, nor the port of the server."""
        code, _ = self.sessions.invite(Entry("ann", "5e", HERE, relayed=True))
        ann = self.sessions.begin(code, HERE, Way("ann", "5e"))
        for way in (Way("bob", "B"), Way("ann", "B"), Way("ann", None), None):
            self.assertIsNone(self.sessions.find(ann.cookie, ann.key, HERE, way))
        self.assertIsNotNone(self.sessions.find(ann.cookie, ann.key, HERE, Way("ann", "5e")))
        own = self.enter()
        self.assertIsNone(self.sessions.find(own.cookie, own.key, HERE, Way("ann", None)))
        code, _ = self.sessions.invite(Entry("ann", "5e", HERE, relayed=True))
        self.assertRaises(Denied, self.sessions.begin, code, HERE, Way("bob", "B"))

    def test_time_ends_sessions(self) -> None:
        unused, used = self.enter(), self.enter()
        for _ in range(int(LONGEST / IDLE)):
            self.now += IDLE - 1
            self.assertIsNotNone(self.sessions.find(used.cookie, used.key, HERE, None))
        self.assertIsNone(self.sessions.find(unused.cookie, unused.key, HERE, None))
        self.now = used.session.begun + LONGEST + 1
        self.sessions.end_old()
        self.assertIsNone(self.sessions.find(used.cookie, used.key, HERE, None))
        self.assertEqual(self.ended, [unused.session.cookie, used.session.cookie])

    def test_revocation(self) -> None:
        """A certificate that ends takes its links and sessions along, and no others."""
        ann, unix = self.enter("ann", "5e"), self.enter()
        code, _ = self.sessions.invite(Entry("ann", "5e", HERE))
        self.sessions.end_of("5e")
        self.assertEqual(self.ended, [ann.session.cookie])
        self.assertRaises(Denied, self.sessions.begin, code, HERE, None)
        self.assertIsNotNone(self.sessions.find(unix.cookie, unix.key, HERE, None))

    def test_logging_out(self) -> None:
        one, other, bob = self.enter(), self.enter(), self.enter("bob")
        self.sessions.end(one.session.cookie)
        self.sessions.end(one.session.cookie)
        code, _ = self.sessions.invite(Entry("ann", None, HERE))
        self.assertEqual(self.sessions.end_all("ann"), 1)
        self.assertEqual(self.ended, [one.session.cookie, other.session.cookie])
        self.assertRaises(Denied, self.sessions.begin, code, HERE, None)
        self.assertIsNotNone(self.sessions.find(bob.cookie, bob.key, HERE, None))

    def test_too_many(self) -> None:
        """The one that was not used for the longest time makes place."""
        first = self.enter()
        self.now += 1
        second = self.enter()
        for _ in range(MAX_OF_USER - 1):
            self.now += 1
            self.enter()
        self.assertEqual(self.ended, [first.session.cookie])
        self.assertIsNotNone(self.sessions.find(second.cookie, second.key, HERE, None))
        self.sessions = self.make(most=MAX_OF_USER)
        self.successResultOf(self.sessions_loaded())
        self.enter("bob")
        self.assertEqual(self.ended, [first.session.cookie, second.session.cookie])

    def test_a_restart(self) -> None:
        """Sessions go on; no secret is kept as it is; those of bad certificates are over."""
        ann, bob = self.enter("ann", "5e"), self.enter("bob", "60")
        kept = repr(self.store.kept)
        for secret in (ann.cookie, ann.key, bob.cookie, bob.key):
            self.assertNotIn(secret, kept)
        self.bad = {"60"}
        self.sessions = self.make()
        self.successResultOf(self.sessions_loaded())
        self.assertIsNotNone(self.sessions.find(ann.cookie, ann.key, HERE, None))
        self.assertIsNone(self.sessions.find(bob.cookie, bob.key, HERE, None))
        self.assertEqual(len(self.store.kept), 1)

    def sessions_loaded(self) -> Deferred[None]:
        """Load, as a Deferred."""
        return Deferred.fromCoroutine(self.sessions.load())
