"""Weeks move one after the other; what fails is tried again."""

from __future__ import annotations

import itertools
from datetime import date
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.log_archive import FakeArchiveRecords, FakeLogArchive
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
        """After half an hour of that, the files go, until the next pass."""
        self.records.errors = [Busy("read")] * DROPS
        self.archiving.start()
        self.clock.pump([DROP_AGAIN_AFTER] * DROPS)
        self.assertEqual((self.archive.stored, self.records.weeks), ({}, WEEKS))
        self.archiving.stop()

    def test_late_lines(self) -> None:
        """A week that changed meanwhile is not dropped; its files go."""
        self.records.changed = True
        self.archiving.start()
        self.assertEqual((self.archive.stored, self.records.weeks), ({}, WEEKS))
        self.assertIsNone(self.archiving.problem)
        self.records.changed = False
        self.clock.advance(EVERY)
        self.assertEqual(self.records.weeks, [])
        self.archiving.stop()

    def test_forgotten_streams(self) -> None:
        """Files that have lines of them are written again, soon; the former ones go."""
        self.archiving.start()
        self.records.forgotten = {2}
        self.archiving.soon()
        self.assertEqual(
            {name: list(one.streams) for name, one in self.archive.stored.items()},
            {"logs-2026-03-02-3-001.parquet": [1], "logs-2026-03-09-4-001.parquet": [1]},
        )
        self.assertEqual(self.records.given_up, [])
        self.archiving.stop()

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
        self.clock.advance(EVERY)
        self.assertEqual(self.records.weeks, [])
        self.archiving.stop()

