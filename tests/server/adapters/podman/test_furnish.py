"""Mounts of podman are known by what is mounted; what a container starts waits for its name."""

from __future__ import annotations

import os
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from walt.server.adapters.podman.furnish import covers, furnish, gate

MOUNTS = r"""
600 500 0:50 / / rw - overlay overlay rw
601 600 0:51 / /proc rw - proc proc rw
602 601 0:51 /sys /proc/sys ro - proc proc rw
603 600 0:60 /containers/a1/userdata/hostname /x\040y/hostname rw - tmpfs tmpfs rw
604 600 0:60 /containers/a1/userdata/resolv.conf /etc/resolv.conf rw - tmpfs tmpfs rw
605 600 0:60 /containers/b2/userdata/hostname /etc/other rw - tmpfs tmpfs rw
606 600 0:60 /containers/a1/userdata/hostname /etc/again rw - tmpfs tmpfs rw
"""


class FurnishTests(SynchronousTestCase):
    def test_covers(self) -> None:
        """Each place of the files asked for, the last one first; nothing else."""
        self.assertEqual(
            covers(MOUNTS, ["a1/userdata/hostname"]), ["/etc/again", "/x y/hostname"]
        )
        self.assertEqual(covers(MOUNTS, ["a1/userdata/resolv.conf"]), ["/etc/resolv.conf"])
        self.assertEqual(covers(MOUNTS, []), [])
        self.assertEqual(covers("", ["a1/userdata/hostname"]), [])

    def test_never_the_server(self) -> None:
        """A number that is no container's any more is not taken for one."""
        self.assertRaises(OSError, furnish, os.getpid(), "x", [])
        self.assertRaises(OSError, furnish, 2**22 + 1, "x", [])

    def test_gate(self) -> None:
        """The program runs when the host has its name, with its variables and words as they are."""
        name = subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout
        argv = gate("/bin/busybox", name.strip(), ["A=b c", "/bin/busybox", "echo", "$HOME *"])
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True)
        self.assertEqual(done.stdout, "$HOME *\n")
        argv = gate("/bin/busybox", "another-name", ["/bin/busybox", "echo", "early"])
        with self.assertRaises(subprocess.TimeoutExpired):
            subprocess.run(argv, capture_output=True, timeout=0.5)
