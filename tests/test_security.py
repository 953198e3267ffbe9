"""Each promise in the table of docs/security.md names a test that exists."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.test_features import ROOT, missing


class SecurityTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Every row has four cells, and ends with tests that are there."""
        text = (ROOT / "docs" / "security.md").read_text()
        table = text.partition("## Threats")[2].partition("\n## ")[0]
        rows = [
            line.strip("|").split("|")
            for line in table.splitlines() if line.startswith("|")
        ][2:]
        self.assertGreater(len(rows), 20)
        for row in rows:
            self.assertEqual(len(row), 4, row)
            names = re.findall(r"`(tests\.[\w.]+)`", row[3])
            self.assertTrue(names, row)
            for name in names:
                self.assertIsNone(missing(name), name)

    def test_names(self) -> None:
        """Tests named anywhere on the page exist."""
        text = (ROOT / "docs" / "security.md").read_text()
        for name in re.findall(r"`(tests\.[\w.]+)`", text):
            self.assertIsNone(missing(name), name)
