"""What is kept for the next question."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.server.runtime.keeping import Keeping, Kept


class KeepingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.ended = Clock(), list[str | None]()
        self.keeping = Keeping[str](self.clock, 10.0, 2, self.end)

    def end(self, kept: Kept[str]) -> None:
        self.ended.append(kept.held)
        kept.held = None
        self.keeping.forget(kept)

    def use(self, key: str) -> Kept[str]:
        kept = self.keeping.used(key)
        kept.stay()
        kept.held = kept.held or key
        return kept

    def test_idle(self) -> None:
        """It ends when nobody used it for a while, and not while somebody does."""
        kept = self.use("a")
        self.keeping.leave(kept)
        self.clock.advance(9.0)
        self.assertIs(self.use("a"), kept)
        self.clock.advance(100.0)
        self.assertEqual(self.ended, [])
        self.keeping.leave(kept)
        self.clock.advance(10.0)
        self.assertEqual(self.ended, ["a"])
        self.assertIsNone(self.keeping.get("a"))
        self.assertIsNot(self.use("a"), kept)

    def test_too_many(self) -> None:
        """The one that was not used for the longest time ends; those in use do not count."""
        used = self.use("used")
        for key in ("a", "b"):
            self.keeping.leave(self.use(key))
        self.keeping.leave(self.use("a"))
        self.keeping.leave(self.use("c"))
        self.assertEqual(self.ended, ["b"])
        self.assertEqual([one.held for one in self.keeping.all()], ["used", "a", "c"])
        self.keeping.leave(used)
        self.assertEqual(self.ended, ["b", "used"])

    def test_nothing(self) -> None:
        """What holds nothing is not ended."""
        self.keeping.leave(self.keeping.used("a"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
