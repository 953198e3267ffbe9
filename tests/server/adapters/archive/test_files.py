"""Readers of archived lines, as the server has them: their number, their time, their failures."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.processes import ProcessClock
from walt.common.errors import LimitExceeded, Unavailable
from walt.server.adapters.archive.files import ArchiveFiles
from walt.server.domain.logs.archive import ArchiveTarget, Reading
from walt.server.domain.shares import ALL_ARCHIVE_READERS, MAX_ARCHIVE_READERS
from walt.server.runtime.process import Launcher
from walt.server.runtime.workers import WorkerPool


class ReadersTests(SynchronousTestCase):
    """Children of a fake reactor."""

    def setUp(self) -> None:
        """Make an archive."""
        self.clock: Any = ProcessClock()
        self.files = ArchiveFiles(
            self.clock, Launcher(), WorkerPool(self.clock, Launcher()),
            ArchiveTarget(directory="/srv/logs"), "",
        )

    def read(self, reader: str = "ann") -> Any:
        """Begin to read."""
        return self.files.read(Reading([("a", 1)], None, reader=reader))

    def test_shares(self) -> None:
        """One who has many readers leaves some to others; places come back at the end."""
        readers = [self.read() for _ in range(MAX_ARCHIVE_READERS)]
        with self.assertRaisesRegex(LimitExceeded, "ann has 3 readers of archived log lines"):
            self.read()
        for number in range(ALL_ARCHIVE_READERS - MAX_ARCHIVE_READERS):
            self.read(f"user{number}")
        with self.assertRaisesRegex(LimitExceeded, "8 readers of archived log lines are open"):
            self.read("bob")
        self.successResultOf(Deferred.fromCoroutine(readers[0].close()))
        self.successResultOf(Deferred.fromCoroutine(readers[0].close()))
        self.read("bob")
        with self.assertRaises(LimitExceeded):
            self.read("bob")

    def test_no_child(self) -> None:
        """A child that cannot be started takes no place, and nobody waits for its end."""
        for _ in range(ALL_ARCHIVE_READERS + 1):
            self.clock.error = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            with self.assertRaisesRegex(Unavailable, "try again later"):
                self.read()
        self.successResultOf(self.files.stop())
        self.read()
        stopped = self.files.stop()
        self.assertNoResult(stopped)
        self.clock.processes[-1].end(signal=9)
        self.successResultOf(stopped)


class TargetTests(SynchronousTestCase):
    """Where files go."""

    def test_lines_that_others_may_read(self) -> None:
        """Only http to another machine lets them."""
        for endpoint, expected in (
            (None, False), ("https://minio.lab.org:9000", False), ("http://127.0.0.1:9000", False),
            ("http://localhost", False), ("http://minio.lab.org:9000", True), ("http://m", True),
        ):
            self.assertEqual(
                ArchiveTarget(bucket="b", endpoint=endpoint).in_the_clear, expected, endpoint
            )
