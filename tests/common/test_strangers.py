"""A program in a tree of a stranger runs nothing that the tree brings."""

from __future__ import annotations

import encodings
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PROGRAM = """
import os, sys
from walt.common.strangers import import_nothing_more
import walt.server.workers.unpack_tree  # what it needs is there before
if sys.argv[2] == "safe":
    import_nothing_more()
os.chroot(sys.argv[1])
os.chdir("/")
raise RuntimeError("words")
"""


class StrangersTests(SynchronousTestCase):
    skip = None if os.geteuid() == 0 else "needs root"

    def test_a_bug_runs_no_codec_of_the_tree(self) -> None:
        """The source of a traceback, and the codec that its first line asks for, are not read."""
        base = Path(self.mktemp()).resolve()
        tree, program = base / "tree", base / "program.py"
        codec = Path(f"{tree}{Path(encodings.__file__).parent}/evilc.py")
        codec.parent.mkdir(parents=True)
        codec.write_text("open('/ran', 'w')\n")
        program.write_text(PROGRAM)
        there = Path(f"{tree}{program}")
        there.parent.mkdir(parents=True)
        there.write_text("# coding: evilc\n" * 30)
        for how, runs in (("open", True), ("safe", False)):
            done = subprocess.run(
                [sys.executable, str(program), str(tree), how], capture_output=True, text=True,
                check=False,
            )
            self.assertEqual(done.returncode, 1)
            self.assertIn("RuntimeError: words", done.stderr)
            self.assertEqual((tree / "ran").exists(), runs, how)
            (tree / "ran").unlink(missing_ok=True)
