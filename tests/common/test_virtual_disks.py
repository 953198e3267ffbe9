"""Disk files of virtual nodes."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.common.virtual_disks import prepare

MIB = 1 << 20


class PrepareTests(SynchronousTestCase):
    def test_for_the_server_alone(self) -> None:
        """No other account, and so no node that follows links by NFS, reads them."""
        directory = Path(self.mktemp()) / "disks"
        directory.mkdir(parents=True)  # as servers before have made it
        (path,) = prepare(directory, [{"size": 8 * MIB, "template": "none"}])
        self.assertEqual(Path(path).stat().st_size, 8 * MIB)
        self.assertEqual(directory.stat().st_mode & 0o777, 0o700)
