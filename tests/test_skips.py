"""A test that is skipped for want of something that every run has fails the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import skips
from tests.system.netns import short_dir

ROOT = Path(__file__).resolve().parents[1]
CASES = '''
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from tests import skips

class Cases(SynchronousTestCase):
    def test_good(self):
        """It runs."""
    def test_hardware(self):
        """Allowed."""
    test_hardware.skip = skips.without_hardware("/dev/no-such-device")
    def test_data(self):
        """Allowed."""
        raise SkipTest(skips.without_data("no/such/recording"))
    def test_program(self):
        """Not allowed."""
    test_program.skip = "not installed: xyz,\\n\\nand a second line"
    def test_program_too(self):
        """Not allowed."""
        raise SkipTest("needs root")
'''


class SkipTests(SynchronousTestCase):
    def run_trial(self, *names: str) -> str:
        """Return what trial says about tests of the module above."""
        directory = short_dir(self)
        (directory / "test_cases.py").write_text(CASES)
        done = subprocess.run(
            [sys.executable, "-m", "twisted.trial", f"--temp-directory={directory}/t", *names],
            cwd=directory, env={"PYTHONPATH": f"{directory}:{ROOT}", "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=False, timeout=120,
        )
        return done.stdout + done.stderr

    def test_undeclared(self) -> None:
        """Hardware and data beside the repository may lack, programs and rights may not."""
        told = skips.undeclared(self.run_trial("test_cases"))
        self.assertEqual([line.split(" was skipped: ")[0] for line in sorted(told)], [
            "test_cases.Cases.test_program", "test_cases.Cases.test_program_too",
        ])

    def test_declared_only(self) -> None:
        """Nothing is told of a run in which only what may lack lacks."""
        names = [f"test_cases.Cases.{name}" for name in ("test_good", "test_hardware", "test_data")]
        output = self.run_trial(*names)
        self.assertIn("skips=2", output)
        self.assertEqual(skips.undeclared(output), [])

    def test_untold(self) -> None:
        """A skip that is counted and not told is one too many."""
        self.assertEqual(len(skips.undeclared("Ran 1 tests\n\nPASSED (skips=1)\n")), 1)

    def test_what_is_there(self) -> None:
        """No reason is given for what is there."""
        self.assertIsNone(skips.without_hardware("/dev/null"))
