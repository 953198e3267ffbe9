"""docs/features.tsv is a table whose proofs exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
STATES = {"works", "partial", "absent", "hardware-only"}
PROOF = re.compile(r"\b(?:tests|bench)(?:\.\w+)+")


def missing(name: str) -> str | None:
    """Return the part of a dotted name that does not exist, None when all does."""
    words = name.split(".")
    place = ROOT
    while words and (place / words[0]).is_dir():
        place /= words.pop(0)
    if words and (place / f"{words[0]}.py").is_file():
        place = place / f"{words.pop(0)}.py"
    if not words:
        return None
    if place.is_dir():
        return words[0]
    tree = ast.parse(place.read_text())
    known = {
        one.name for one in ast.walk(tree)
        if isinstance(one, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    }
    return next((word for word in words if word not in known), None)


class FeatureTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Four columns, one row an id, in order; what works names a test that is there."""
        head, *lines = (ROOT / "docs/features.tsv").read_text().splitlines()
        self.assertEqual(head, "id\tfeature\tstate\tproof")
        rows = [line.split("\t") for line in lines]
        ids = [row[0] for row in rows]
        self.assertEqual(ids, sorted(set(ids)))
        for row in rows:
            self.assertEqual(len(row), 4, row)
            key, feature, state, proof = row
            self.assertIn(state, STATES, key)
            self.assertTrue(feature, key)
            names = PROOF.findall(proof)
            if state == "works":
                self.assertTrue(names, f"{key} names no test")
            wrong = {name: missing(name) for name in names if missing(name)}
            self.assertEqual(wrong, {}, key)
