"""Upkeep of logs, with a clock."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.log_store import FakeLogStore
from walt.common.errors import Busy, Unavailable
from walt.server.domain.logs.model import LogLine
from walt.server.domain.logs.upkeep import (
    AT_ONCE,
    EVERY,
    RETRY_AFTER,
    SHORTEST_PAUSE,
    LogUpkeep,
)


class UpkeepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.store = Clock(), FakeLogStore()
        self.upkeep = LogUpkeep(self.store, self.clock, 30)

    def start(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.upkeep.start()))

    def test_regularly(self) -> None:
        """Partitions and retention at start, then every few hours; sooner if they were busy."""
        self.store.upkeep_errors = [Busy("somebody reads")]
        self.start()
        self.assertEqual(self.store.upkeep, ["partitions"])
        self.clock.pump([SHORTEST_PAUSE, RETRY_AFTER])
        self.assertEqual(self.store.upkeep, ["partitions", "partitions", "drop 30"])
        self.clock.advance(EVERY)
        self.assertEqual(len(self.store.upkeep), 5)
        self.clock.advance(SHORTEST_PAUSE)
        self.upkeep.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_removal(self) -> None:
        """Lines of forgotten devices go little by little, with pauses, whatever happens."""
        self.store.unknown = {"gone"}
        self.store.rows = [
            (1.0, LogLine(1, "gone", "exp", str(n))) for n in range(2 * AT_ONCE + 1)
        ]
        self.start()
        self.assertEqual(len(self.store.lines), AT_ONCE + 1)
        remove, self.store.remove_forgotten = self.store.remove_forgotten, self._lost
        self.clock.advance(SHORTEST_PAUSE)
        self.store.remove_forgotten = remove
        self.upkeep.remove_soon()
        for _ in range(10):
            self.clock.advance(SHORTEST_PAUSE)
        self.assertEqual(self.store.lines, [])
        self.upkeep.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def _lost(self, count: int) -> bool:
        raise Unavailable("the database is away")

    def test_stop(self) -> None:
        """A stop in the middle leaves the rest."""
        self.store.unknown = {"gone"}
        self.store.rows = [
            (1.0, LogLine(1, "gone", "exp", str(n))) for n in range(2 * AT_ONCE + 1)
        ]
        self.start()
        self.upkeep.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.store.lines), AT_ONCE + 1)
