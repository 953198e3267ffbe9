from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Unavailable
from walt.server.adapters.postgres.cluster import binaries, binaries_for


class BinariesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """PostgreSQL 9, 15 and 17, as a Debian that was upgraded has them."""
        self.root, self.data = Path(self.mktemp()), Path(self.mktemp())
        self.data.mkdir()
        for version in ("9", "15", "17", "common"):
            place = self.root / version / "bin"
            place.mkdir(parents=True)
            (place / "postgres").touch()

    def test_a_new_cluster(self) -> None:
        """Debian's own, whatever else is installed; elsewhere the newest, by number."""
        about = Path(self.mktemp())
        self.assertEqual(binaries(self.root), self.root / "17/bin")
        for text, version in (
            ("ID=debian\nVERSION_CODENAME=bookworm\n", "15"),
            ('VERSION_CODENAME="bookworm"\n', "15"), ("VERSION_CODENAME=trixie\n", "17"),
            ("VERSION_CODENAME=forky\n", "17"), ("ID=other\n", "17"),
        ):
            about.write_text(text)
            found = binaries_for(self.data, self.root, about)
            self.assertEqual(found, self.root / version / "bin", text)
        about.write_text("VERSION_CODENAME=bookworm\n")
        (self.root / "15/bin/postgres").unlink()
        self.assertEqual(binaries_for(self.data, self.root, about), self.root / "17/bin")
        about.unlink()
        self.assertEqual(binaries_for(self.data, self.root, about), self.root / "17/bin")

    def test_after_an_upgrade_of_debian(self) -> None:
        """Files stay with the version that made them; without it, what to do is told."""
        (self.data / "PG_VERSION").write_text("15\n")
        self.assertEqual(binaries_for(self.data, self.root), self.root / "15/bin")
        (self.root / "15/bin/postgres").unlink()
        error = self.assertRaises(Unavailable, binaries_for, self.data, self.root)
        self.assertIn("apt-get install postgresql-15", str(error))
        (self.data / "PG_VERSION").write_text("../17\n")
        self.assertRaises(Unavailable, binaries_for, self.data, self.root)

    def test_none(self) -> None:
        """Without PostgreSQL the package is named."""
        error = self.assertRaises(Unavailable, binaries, Path(self.mktemp()))
        self.assertIn("apt-get install postgresql", str(error))
