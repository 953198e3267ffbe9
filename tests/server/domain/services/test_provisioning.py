from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.services.provisioning import _all_of


class WaitingTests(SynchronousTestCase):
    def test_cancelled(self) -> None:
        """Who stops waiting is told so; the work goes on."""
        work: Deferred[Any] = Deferred()
        waiting = _all_of([work])
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertFalse(work.called)

    def test_all(self) -> None:
        """It waits for all."""
        one: Deferred[Any] = Deferred()
        two: Deferred[Any] = Deferred()
        waiting = _all_of([one, two])
        one.callback(None)
        self.assertNoResult(waiting)
        two.callback("done")
        self.assertEqual(len(self.successResultOf(waiting)), 2)
