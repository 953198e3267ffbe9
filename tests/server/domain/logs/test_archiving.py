"""Weeks move one after the other; what fails is tried again."""

from __future__ import annotations

import itertools
from datetime import date
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.log_archive import FakeArchiveRecords, FakeLogArchive, file_named
from walt.common.errors import Busy, Unavailable
from walt.server.domain.logs.archive import Owner, Part, Written
from walt.server.domain.logs.archiving import (
    DROP_AGAIN_AFTER,
    DROPS,
    EVERY,
    RETRY_AFTER,
    LogArchiving,
)

WEEKS = [
    Part("logs_20260302", date(2026, 3, 2)), Part("logs_20260309", date(2026, 3, 9))
]
FIRST, SECOND = "logs-2026-03-02-1-001.parquet", "logs-2026-03-09-2-001.parquet"


class HeldArchive(FakeLogArchive):
    """A store that does not answer until `gate` fires."""

    def __init__(self) -> None:
        super().__init__(1)
        self.gate: Deferred[None] = Deferred()

    async def write(self, part: Part, prefix: str, owner: Owner) -> Written:
        await self.gate
        return await super().write(part, prefix, owner)


class ArchivingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Two weeks are due."""
        self.clock = Clock()
        self.records, self.archive = FakeArchiveRecords(*WEEKS), FakeLogArchive(1, 2)
        self.archiving = self.made(self.archive)

    def made(self, archive: FakeLogArchive, **options: Any) -> LogArchiving:
        """Return who moves weeks."""
        names = itertools.count(1)
        return LogArchiving(
            self.records, archive, self.clock, 30, options.get("retention"),
            lambda: str(next(names)),
        )

    def test_weeks(self) -> None:
        """All that are due move at the start, later ones an hour later."""
        self.archiving.start()
        self.assertEqual(list(self.records.kept), [FIRST, SECOND])
        self.assertEqual((self.records.begun, self.archiving.moved), ([], 4))
        self.records.weeks.append(Part("logs_20260316", date(2026, 3, 16)))
        self.clock.advance(EVERY)
        self.assertEqual(len(self.records.kept), 3)
        self.archiving.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_store_that_is_away(self) -> None:
        """It is said once; the week stays; ten minutes later it is begun anew."""
        self.archive.errors = [Unavailable("away"), Unavailable("away")]
        self.archiving.start()
        self.assertEqual((self.archiving.problem, self.records.weeks), ("away", WEEKS))
        self.assertEqual(len(self.records.begun), 1)
        self.clock.advance(RETRY_AFTER)
        self.assertEqual(self.archiving.problem, "away")
        self.clock.advance(RETRY_AFTER)
        self.assertEqual((self.archiving.problem, self.records.weeks), (None, []))
        self.assertEqual(self.records.begun, [])
        self.assertEqual(len(self.archive.stored), 2)
        self.archiving.stop()

    def test_readers(self) -> None:
        """A week that is read is dropped later, and not written again for that."""
        self.records.errors = [Busy("read"), Busy("read")]
        self.archiving.start()
        self.assertEqual(len(self.archive.stored), 1)
        self.clock.pump([DROP_AGAIN_AFTER] * 2)
        self.assertEqual(self.records.weeks, [])
        self.assertEqual(len(self.archive.stored), 2)
        self.archiving.stop()

    def test_endless_readers(self) -> None:
        """After half an hour of that, it is told; what was written stays, and is not outdated."""
        self.records.errors = [Busy("read")] * (DROPS + 5)
        self.archiving.start()
        self.clock.pump([DROP_AGAIN_AFTER] * DROPS)
        self.assertIn("somebody reads log lines", self.archiving.problem or "")
        self.flushLoggedErrors()
        self.assertEqual((list(self.archive.stored), self.records.weeks), ([FIRST], WEEKS))
        self.clock.pump([DROP_AGAIN_AFTER] * 5)
        self.assertEqual((list(self.archive.stored), self.records.weeks), ([FIRST, SECOND], []))
        self.assertIsNone(self.archiving.problem)
        self.archiving.stop()

    def test_a_commit_in_doubt(self) -> None:
        """Nothing is removed while an attempt may still be recorded; it is told."""
        self.archive.stored["logs-x-001.parquet"] = file_named("logs-x-001.parquet", 1)
        self.records.begun, self.records.in_doubt = ["logs-x"], True
        self.archiving.start()
        self.assertEqual(self.archiving.problem, "in doubt")
        self.assertIn("logs-x-001.parquet", self.archive.stored)
        self.records.in_doubt = False
        self.clock.advance(RETRY_AFTER)
        self.assertIsNone(self.archiving.problem)
        self.assertNotIn("logs-x-001.parquet", self.archive.stored)
        self.archiving.stop()

    def test_late_lines(self) -> None:
        """A week that changed meanwhile is not dropped; its files go, others have their turn."""
        self.records.changed = {WEEKS[0].table}
        self.archiving.start()
        self.assertEqual((list(self.archive.stored), self.records.weeks), ([SECOND], WEEKS[:1]))
        self.assertIsNone(self.archiving.problem)
        self.records.changed = set()
        self.clock.advance(EVERY)
        self.assertEqual(self.records.weeks, [])
        self.archiving.stop()

    def test_endless_late_lines(self) -> None:
        """It is tried less and less often, and told."""
        written = []
        self.patch(self.archive, "_add", lambda prefix, streams: (
            written.append(self.clock.seconds()), [file_named(prefix, 1)])[1])
        self.records.changed = {WEEKS[0].table}
        del self.records.weeks[1]
        self.archiving.start()
        self.clock.pump([RETRY_AFTER] * (12 * 6))
        self.assertEqual([round(one / EVERY) for one in written], [0, 1, 3, 7])
        self.assertIn("lines came 4 times", self.archiving.problem or "")
        self.flushLoggedErrors()
        self.records.changed = set()
        self.clock.pump([RETRY_AFTER] * (4 * 6))
        self.assertEqual((self.records.weeks, self.archiving.problem), ([], None))
        self.archiving.stop()

    def test_forgotten_streams(self) -> None:
        """Files that have lines of them are written again, soon; the former ones are given up."""
        self.archiving.start()
        self.records.forgotten = {2}
        self.archiving.soon()
        self.assertEqual(
            {name: list(one.streams) for name, one in self.archive.stored.items()},
            {"logs-2026-03-02-3-001.parquet": [1], "logs-2026-03-09-4-001.parquet": [1]},
        )
        self.assertEqual(self.records.given_up, [])
        self.archiving.stop()

    def test_forgotten_meanwhile(self) -> None:
        """What is forgotten while a week is written, or waits, is not left to the next hour."""
        held = HeldArchive()
        archiving = self.made(held)
        self.records.kept = {"logs-2026-02-23-0-001.parquet": file_named("x", 1, 2)}
        held.stored["logs-2026-02-23-0-001.parquet"] = file_named("x", 1, 2)
        self.records.errors = [Busy("read")] * 2
        archiving.start()
        self.records.forgotten = {2}
        archiving.soon()
        held.gate.callback(None)
        self.clock.advance(DROP_AGAIN_AFTER)
        self.assertEqual(len(self.records.weeks), 2)
        self.assertEqual(
            [list(one.streams) for one in self.records.kept.values()], [[1]]
        )
        self.clock.advance(DROP_AGAIN_AFTER)
        self.assertEqual(self.records.weeks, [])
        archiving.stop()

    def test_retention(self) -> None:
        """Old files are given up."""
        archiving = self.made(self.archive, retention=365)
        archiving.start()
        self.assertEqual(set(self.records.retired), {365})
        archiving.stop()

    def test_stopped(self) -> None:
        """What was under way is left to the next start, which cleans up and does it."""
        held = HeldArchive()
        archiving = self.made(held)
        archiving.start()
        archiving.soon()  # it is being done
        archiving.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((len(self.records.begun), self.records.weeks), (1, WEEKS))
        self.archiving.start()
        self.assertEqual((self.records.begun, self.records.weeks), ([], []))
        self.archiving.stop()

    def test_a_bug(self) -> None:
        """Whatever fails is logged, and tried again."""
        self.archive.errors = [RuntimeError("bug")]
        self.archiving.start()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIn("internal error", self.archiving.problem or "")
        self.clock.advance(RETRY_AFTER)
        self.assertEqual((self.records.weeks, self.archiving.problem), ([], None))
        self.archiving.stop()
