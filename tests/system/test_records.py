"""Which records of a live server's log fail a test, and which ends of the server do."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.system.live import _Server
from tests.system.records import faults, records

GOOD = """2026-11-28T03:28:54+0000 [walt.server.assembly.server#info] the server is ready
2026-11-28T03:28:54+0000 [walt.server.runtime.child#error] dhcpd ended unexpectedly
"""
CRITICAL = """2026-11-28T03:28:55+0000 [walt.server.x#critical] making a thing failed
\tTraceback (most recent call last):
\t  File "x.py", line 1, in <module>
\tValueError: nothing
"""
NOISE = """2026-11-28T03:28:56+0000 [stderr#error] Exception ignored in: <function x>
"""
AWAIT = """2026-11-28T03:28:57+0000 [stderr#error] RuntimeWarning: coroutine 'x' was never awaited
"""


class RecordTests(SynchronousTestCase):
    def test_records(self) -> None:
        """A traceback belongs to the record that it follows."""
        text = GOOD + CRITICAL + NOISE
        self.assertEqual("".join(records(text)), text)
        self.assertEqual(len(list(records(text))), 4)
        self.assertEqual(list(records("")), [])

    def test_faults(self) -> None:
        """Critical lines, tracebacks, and what the interpreter complains of; not plain errors."""
        self.assertEqual(faults(GOOD, []), [])
        self.assertEqual(faults(GOOD + CRITICAL + NOISE + GOOD + AWAIT, []),
                         [CRITICAL, NOISE, AWAIT])
        plain = "Traceback (most recent call last):\n  before any record\n"
        self.assertEqual(faults(plain + GOOD, []), [plain])

    def test_expected(self) -> None:
        """What a test provokes passes, by any text of its record, and nothing else does."""
        self.assertEqual(faults(CRITICAL + NOISE, ["ValueError: nothing"]), [NOISE])
        self.assertEqual(faults(CRITICAL, ["ready"]), [CRITICAL])


class EndTests(SynchronousTestCase):
    def wrong(self, reason: Any, *sent: int) -> str | None:
        """Return what is wrong with the end of a server that was sent signals."""
        server = _Server(Path(self.mktemp()))
        server.sent.update(sent)
        server.processExited(Failure(reason))
        return server.wrong

    def test_as_told(self) -> None:
        """By the signal that it was sent, or with status 0 after one."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.assertIsNone(self.wrong(ProcessTerminated(None, number), number))
        self.assertIsNone(self.wrong(ProcessDone(0), signal.SIGUSR2))

    def test_otherwise(self) -> None:
        """By another signal, with another status, or at no one's wish."""
        self.assertIn("signal 11", self.wrong(ProcessTerminated(None, 11), signal.SIGTERM) or "")
        self.assertIn("status 1", self.wrong(ProcessTerminated(1), signal.SIGTERM) or "")
        self.assertIn("by itself", self.wrong(ProcessDone(0)) or "")
        self.assertIn("by itself", self.wrong(ProcessTerminated(1)) or "")
