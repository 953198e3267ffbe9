"""What is read while the first floor waits: names that exist, from leaf to top, a bit each turn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Unavailable
from walt.server.assembly.reading import IMAGES, REST, UPPER, Reading, read

ROOT = Path(__file__).resolve().parents[3]
MOST = 100  # modules that one turn reads, and their libraries; most read twenty
# Prints what is there after the first floor, how many modules come with each name, and what is
# there in the end.
STEPS = """
import json, sys
from importlib import import_module
import twisted.scripts.twistd, twisted.internet.reactor, walt.server.tap
import walt.server.assembly.server
first, steps = sorted(sys.modules), []
for name in sys.argv[1:]:
    before = len(sys.modules)
    import_module(name)
    steps.append(len(sys.modules) - before)
print(json.dumps([first, steps, sorted(sys.modules)]))
"""


def steps(*names: str) -> tuple[list[str], list[int], list[str]]:
    """Return what STEPS prints, of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *names], cwd=ROOT, check=True, capture_output=True
    )
    first, counts, last = json.loads(done.stdout)
    return first, counts, last


class ReadingTests(SynchronousTestCase):
    def test_names(self) -> None:
        """None reads too much; what the first floor has read is not the rest."""
        names = (*IMAGES, *UPPER, *REST)
        first, counts, _ = steps(*names)
        read = dict(zip(names, counts, strict=True))
        self.assertEqual([name for name, count in read.items() if count > MOST], [])
        self.assertNotIn("walt.server.assembly.images", first)
        self.assertNotIn("walt.server.assembly.core", first)

    def test_what_waits_for_its_first_use(self) -> None:
        """Libraries of web pages are no part of the start."""
        _, _, last = steps(*IMAGES, *UPPER)
        self.assertEqual({"markdown_it", "wsproto"} & {*last}, set())
        _, _, last = steps(*REST)
        self.assertLess({"markdown_it", "wsproto"}, {*last})

    def test_one_in_each_turn(self) -> None:
        """Others have their turn between two names."""
        clock = Clock()
        reading = Deferred.fromCoroutine(read(clock, ("json", "os", "sys")))
        self.assertNoResult(reading)
        others: list[bool] = []

        def other() -> None:
            others.append(reading.called)
            if not reading.called:
                clock.callLater(0, other)

        other()
        clock.advance(0)
        self.successResultOf(reading)
        self.assertGreaterEqual(others.count(False), 3)

    def test_order(self) -> None:
        """The modules of images come first; who waits for them is told."""
        clock: Any = Clock()
        reading = Reading(clock)
        running = Deferred.fromCoroutine(reading.floors())
        self.assertNoResult(reading.images)
        early: list[bool] = []
        reading.images.addCallback(lambda _: early.append(running.called))
        clock.advance(0)
        self.assertEqual(early, [False])
        self.successResultOf(running)

    def test_what_is_missing(self) -> None:
        """The start ends with a sentence that says what, and what to do."""
        clock: Any = Clock()
        reading = Deferred.fromCoroutine(read(clock, ("json", "walt.server.no_such_part", "os")))
        clock.advance(0)
        failure = self.failureResultOf(reading, Unavailable)
        self.assertIn("walt.server.no_such_part", str(failure.value))
        self.assertIn("install the server again", str(failure.value))

    def test_stopped_meanwhile(self) -> None:
        """What is given up reads no more."""
        clock = Clock()
        reading = Deferred.fromCoroutine(read(clock, ("json", "os", "sys")))
        reading.cancel()
        self.failureResultOf(reading)
        self.assertEqual(clock.getDelayedCalls(), [])
