"""Answers of thousands of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.server.api.many import AT_ONCE, written


class WrittenTests(SynchronousTestCase):
    def test_slices(self) -> None:
        """Rows are made when it is their turn."""
        clock, made = Clock(), list[int]()

        def rows() -> Iterator[dict[str, int]]:
            for number in range(2 * AT_ONCE + 1):
                made.append(number)
                yield {"n": number}

        work = Deferred.fromCoroutine(written(rows(), clock))
        self.assertEqual(len(made), AT_ONCE)
        clock.pump([0, 0])
        found = json.loads(b"".join(self.successResultOf(work).parts))
        self.assertEqual(found, [{"n": number} for number in made])

    def test_none(self) -> None:
        """No row is an empty list."""
        work = Deferred.fromCoroutine(written([], Clock()))
        self.assertEqual(self.successResultOf(work).parts, (b"[]",))
