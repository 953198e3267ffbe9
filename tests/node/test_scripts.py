"""Node scripts, without a node: syntax, places, and the tools that only need a server."""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.server.adapters.podman.prepare import INTERNAL_SCRIPTS, PUBLIC_SCRIPTS

SCRIPTS = Path(str(resources.files("walt.node")))


class SyntaxTests(SynchronousTestCase):
    skip = None if shutil.which("dash") and shutil.which("busybox") else "needs dash and busybox"

    def test_every_script_is_put_somewhere(self) -> None:
        """The files of the package are exactly what is written into images."""
        files = {path.name for path in SCRIPTS.iterdir() if path.name.startswith("walt-")}
        self.assertEqual(files, set(PUBLIC_SCRIPTS) | set(INTERNAL_SCRIPTS))

    def test_both_shells_accept_them(self) -> None:
        """dash and busybox ash parse every script."""
        for name in (*PUBLIC_SCRIPTS, *INTERNAL_SCRIPTS):
            for shell in (["dash"], ["busybox", "sh"]):
                done = subprocess.run(
                    [*shell, "-n", str(SCRIPTS / name)], capture_output=True, check=False
                )
                self.assertEqual((name, done.stderr), (name, b""))

    def test_init_refuses_to_run_by_hand(self) -> None:
        """walt-init is for the first process alone."""
        done = subprocess.run(["sh", str(SCRIPTS / "walt-init")], capture_output=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"first process", done.stderr)
