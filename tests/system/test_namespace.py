"""NetworkNamespace, in processes of their own (setns concerns a whole thread)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import Namespace, sh, short_dir, why_not
from walt.common.errors import Invalid
from walt.server.adapters.network.namespace import NetworkNamespace


class NamespaceTests(SynchronousTestCase):
    skip = why_not("ip", "nsenter")

    def setUp(self) -> None:
        self.name = f"walt-n{os.getpid()}-{self._testMethodName[-6:]}"
        self.marker = short_dir(self) / "netns"
        self.addCleanup(sh, "ip", "netns", "del", self.name, check=False)

    def start(self, ending: str) -> subprocess.Popen[str]:
        """Start a process that creates the namespace."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.system.namespace_child", self.name,
             str(self.marker), ending],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).resolve().parents[2],
        )

    def ends(self, child: subprocess.Popen[str]) -> str:
        """Return what a process said until its end."""
        return child.communicate(timeout=30)[0]

    def test_create_and_remove(self) -> None:
        """Inside there is only lo; the host stays reachable; nothing is left behind."""
        said = self.ends(self.start("remove"))
        self.assertEqual(
            said.splitlines(),
            ["inside: lo", "host: True", "back: lo", "child: True", "visible: True",
             "removed: True True"],
        )
        self.assertFalse(self.marker.exists())

    def test_mounts_do_not_pile_up(self) -> None:
        """However often namespaces come and go, /run/netns is mounted once at most."""
        for _ in range(3):
            self.ends(self.start("remove"))
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        self.assertLessEqual(len([m for m in mounts if m.split()[4] == "/run/netns"]), 1)

    def test_left_over_of_a_crash(self) -> None:
        """What a crashed server left is replaced, so that `ip netns` shows one namespace."""
        self.ends(self.start("crash"))
        self.assertIn(self.name, sh("ip", "netns", "list"))
        self.assertIn("removed: True True", self.ends(self.start("remove")))
        self.assertNotIn(self.name, sh("ip", "netns", "list"))

    def test_used_by_a_living_server(self) -> None:
        """A second server is refused, the first one keeps its namespace."""
        first = self.start("wait")
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("visible"):
                break
        self.assertIn(f"is used by process {first.pid}", self.ends(self.start("remove")))
        self.assertIn("removed: True True", self.ends(first))

    def test_somebody_elses(self) -> None:
        """A namespace that another program made is never touched."""
        other = Namespace(self)
        self.name = other.name
        self.assertIn("exists already and is not ours", self.ends(self.start("remove")))
        self.assertIn(other.name, sh("ip", "netns", "list"))

    def test_bad_names(self) -> None:
        """Names that could leave the directory are refused."""
        for name in ("", "..", "a/b", "-x", "a b", "x" * 65):
            self.assertRaises(Invalid, NetworkNamespace, name, self.marker)
