"""When things that failed are tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.retries import FIRST, LONGEST, Retries


class RetriesTests(SynchronousTestCase):
    def test_pace(self) -> None:
        """Each failure waits twice as long as the one before, up to a limit."""
        retries: Retries[str] = Retries()
        self.assertTrue(retries.is_due("a", 0))
        self.assertIsNone(retries.next_due())
        now, pauses = 0.0, []
        for _ in range(9):
            retries.failed("a", now, "broken")
            due = retries.next_due()
            assert due is not None
            self.assertFalse(retries.is_due("a", due - 0.1))
            self.assertTrue(retries.is_due("a", due))
            pauses.append(due - now)
            now = due
        self.assertEqual(pauses[:4], [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST])
        self.assertEqual(pauses[-1], LONGEST)

    def test_news(self) -> None:
        """The same failure again is no news; another reason is."""
        retries: Retries[str] = Retries()
        self.assertEqual(
            [retries.failed("a", 0, why) for why in ("x", "x", "y")], [True, False, True]
        )
        self.assertEqual(dict(retries.reasons), {"a": "y"})
        self.assertTrue(retries.succeeded("a"))
        self.assertFalse(retries.succeeded("a"))
        self.assertEqual(dict(retries.reasons), {})

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 100))))
    def test_each_for_itself(self, steps: list[tuple[str, bool, float]]) -> None:
        """What happens to one thing changes nothing for another one."""
        together: Retries[str] = Retries()
        alone = {name: Retries[str]() for name in "abc"}
        now = 0.0
        for name, works, pause in steps:
            now += pause
            for one in (together, alone[name]):
                if works:
                    one.succeeded(name)
                else:
                    one.failed(name, now, "x")
            for other in "abc":
                self.assertEqual(together.is_due(other, now), alone[other].is_due(other, now))
