"""Archives on a disk that is full, and when the power fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.client.experiment.archive import Folder, write

ROOT = Path(__file__).resolve().parents[2]
TEXT = "name: small\nroles:\n  a: {}\nmeasure:\n  - a: id\n"
# $1: where a small file system is mounted, in a namespace that ends with this shell.
FULL = """\
mount -t tmpfs -o size=256k none "$1" || exit 99
place=$1; shift
"$@"; status=$?
ls -A "$place"
exit $status
"""


class FullDiskTests(SynchronousTestCase):
    skip = None if os.geteuid() == 0 else "needs root"

    def test_sealing(self) -> None:
        """It is told in words; nothing half is left, and the folder is as it was."""
        place = Path(self.mktemp()).absolute()
        folder, small = Folder(place / "run"), place / "small"
        small.mkdir(parents=True)
        folder.begin({
            "format": 1, "name": "small", "licence": "", "run": "0" * 12, "began": 1e9,
            "ended": 1e9, "state": "done", "walt": {}, "roles": {}, "nodes": {}, "images": {},
            "booted": {}, "commit": None, "spans": [],
        }, TEXT, {})
        saved = folder.place("p00001", "a", "noise")
        saved.parent.mkdir(parents=True)
        saved.write_bytes(os.urandom(1 << 20))
        walt = [sys.executable, "-m", "walt.client.main", "experiment"]
        for where, status, told, left in (
            (small / "run.zip", 1, "could not be written: No space left on device", ""),
            (place / "run.zip", 0, "", ""),
        ):
            found = subprocess.run(
                ["unshare", "--mount", "sh", "-c", FULL, "sh", str(small), *walt, "seal", "--to",
                 str(where), str(folder.path)],
                capture_output=True, timeout=120, check=False, cwd=place,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(place)},
            )
            self.assertEqual(found.returncode, status, found.stderr)
            self.assertIn(told, found.stderr.decode())
            if status:
                self.assertEqual(found.stdout.decode(), left)
        self.assertEqual(saved.stat().st_size, 1 << 20)
        self.assertTrue((place / "run.zip").exists())


class LastingTests(SynchronousTestCase):
    def test_order(self) -> None:
        """A file is on the disk before it has its name, and the name before one goes on."""
        place = Path(self.mktemp())
        place.mkdir()
        deeds: list[str] = []
        sync, rename = os.fsync, Path.rename

        def synced(descriptor: int) -> None:
            deeds.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
            sync(descriptor)

        def renamed(path: Path, target: Path) -> Path:
            deeds.append("rename")
            return rename(path, target)

        self.patch(os, "fsync", synced)
        self.patch(Path, "rename", renamed)
        write(place / "point.json", b"{}")
        self.assertEqual(deeds, [".point.json.new", "rename", place.name])
        del deeds[:]
        write(place / "point.json", b"{}", lasting=False)
        self.assertEqual(deeds, ["rename"])
