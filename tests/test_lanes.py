"""Which tests each part of the suite runs."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scripts import run_lanes

TESTS = Path(__file__).parent
MODULES = {
    f"tests.{place}.{path.stem}"
    for place in ("attacks", "system") for path in (TESTS / place).glob("test_*.py")
}


def names(part: str) -> list[str]:
    """Return what a part gives to trial, one after the other."""
    in_lanes, alone = run_lanes.runs(part)
    return [name for run in (*in_lanes, *alone) for name in run]


class PartsTests(SynchronousTestCase):
    def test_all(self) -> None:
        """Quick and slow ones are all tests, each once; the system part has those of both."""
        both = names("quick") + names("slow")
        self.assertEqual(len(both), len(set(both)))
        self.assertEqual(set(both) & MODULES, MODULES)
        self.assertIn("tests.contracts", names("quick"))
        self.assertIn("tests.server", run_lanes.fast_tests())
        self.assertEqual(set(names("system")), MODULES)

    def test_release(self) -> None:
        """Another release tries what is listed and the scenarios: both releases try all tests."""
        run = names("release")
        self.assertEqual(
            {name.split(".")[-1] for name in run}, run_lanes.RELEASE | run_lanes.SCENARIOS
        )
        self.assertEqual(MODULES - set(run) - set(names("quick")), set())

    def test_tables(self) -> None:
        """The tables name modules that exist."""
        stems = {name.split(".")[-1] for name in MODULES}
        for table in (run_lanes.LONGEST, run_lanes.SCENARIOS, run_lanes.RELEASE):
            self.assertEqual(set(table) - stems, set())

    def test_lab(self) -> None:
        """The lab has its own command, which runs all of it."""
        found = {f"tests.lab.{path.stem}" for path in (TESTS / "lab").glob("test_*.py")}
        self.assertEqual(set(names("lab")), found)
        self.assertEqual(names("lab-short"), ["tests.lab.test_install"])
        self.assertNotIn("tests.lab", run_lanes.fast_tests())

    def test_alone(self) -> None:
        """The crowd has the machine for itself."""
        self.assertEqual(run_lanes.runs("slow")[1], [[run_lanes.ALONE]])
        self.assertEqual(run_lanes.runs("quick")[1], [])


TOLD = f"""tests.some:
{"=" * 79}
[FAIL]
Traceback (most recent call last):
  File "x.py", line 1, in test_a
twisted.trial.unittest.FailTest: not equal:
a = 1
b = 2


tests.some.Case.test_a
tests.some.Case.test_b
{"=" * 79}
[ERROR]
Traceback (most recent call last):
builtins.OSError: full

tests.some.Case.test_c
{"-" * 79}
Ran 3 tests in 1.0s

FAILED (failures=2, errors=1)"""


UNEQUAL = 'File "x.py", line 1, in test_a twisted.trial.unittest.FailTest: not equal: a = 1 b = 2'


class RecapTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Each test that did not pass has a line, with the end of the reason."""
        self.assertEqual(run_lanes.recap(TOLD), [
            f"not passed: tests.some.Case.test_{test}: [{kind}] Traceback (most recent call last): "
            + words
            for test, kind, words in (
                ("a", "FAIL", UNEQUAL), ("b", "FAIL", UNEQUAL),
                ("c", "ERROR", "builtins.OSError: full"),
            )
        ])

    def test_long_reason(self) -> None:
        """Of a long last line the begin is told, of many lines the last ones."""
        self.assertEqual(run_lanes.last_words("log\n" + "x in " + "y" * 400), "x in " + "y" * 295)
        self.assertEqual(
            run_lanes.last_words("log line\n" * 99 + "\nnot reached: it")[-24:],
            "log line not reached: it",
        )

    def test_again(self) -> None:
        """What is tried once more: tests of machines, when no other one failed."""
        machines = TOLD.replace("tests.some.Case", "tests.system.test_x.Case")
        self.assertEqual(run_lanes.failed_tests(machines), [
            f"tests.system.test_x.Case.test_{letter}" for letter in "abc"
        ])
        self.assertEqual(run_lanes.failed_tests(TOLD), [])
        self.assertEqual(
            run_lanes.failed_tests(machines.replace("tests.system.test_x.Case.test_c", "tests.a")),
            [],
        )
        self.assertEqual(run_lanes.failed_tests("tests.system.test_x:\nKilled\n"), [])

    def test_no_test(self) -> None:
        """What ended without a word of trial has a line, too."""
        self.assertEqual(
            run_lanes.recap("tests.some:\nKilled\n"), ["not passed: tests.some: Killed"]
        )


class TimeTests(SynchronousTestCase):
    def test_no_time_left(self) -> None:
        """After the given moment no run is started; each is named, and counts as skipped."""
        self.patch(os, "environ", {run_lanes.UNTIL: "1.0"})
        counts, told, out = dict[str, int](), list[str](), StringIO()
        with redirect_stdout(out):
            asyncio.run(run_lanes.lane(0, "/no/trial", [["tests.a"], ["tests.b"]], counts, told))
        self.assertEqual(counts, {"skips": 2})
        self.assertEqual(out.getvalue().splitlines(), [
            "not run for want of time: tests.a", "not run for want of time: tests.b",
        ])
        self.assertEqual(told, [])

    def test_again_later(self) -> None:
        """What failed may be tried once more for a while after that moment."""
        self.patch(os, "environ", {run_lanes.UNTIL: str(time.time() - 60)})
        self.assertTrue(run_lanes.late())
        self.assertFalse(run_lanes.late(run_lanes.AGAIN_LATER))
