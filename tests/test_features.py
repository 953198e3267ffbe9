"""docs/features.tsv has a row for each id of docs/spec/ids.tsv, and its proofs exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
HEAD = ("id", "feature", "state", "proof")
STATES = {"works", "partial", "absent", "hardware-only"}
PROOF = re.compile(r"\b(?:tests|bench)(?:\.\w+)+|(?<=, )test_[\w.]+")


def proofs(text: str) -> list[str]:
    """Return the full names in a proof: after one, `, test_x` is a sibling of it."""
    names: list[str] = []
    for name in PROOF.findall(text):
        if name.startswith("test_"):
            name = f"{names[-1].rpartition('.')[0]}.{name}"
        names.append(name)
    return names


@cache
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


def table(name: str, *head: str) -> list[list[str]]:
    """Return the rows of a table of docs, whose first line must be `head`."""
    first, *lines = (ROOT / "docs" / name).read_text().splitlines()
    assert first.split("\t") == list(head), first
    return [line.split("\t") for line in lines]


class FeatureTests(SynchronousTestCase):
    def test_every_id(self) -> None:
        """What the specification asks for has a row; `D-` are decisions of the design."""
        wanted = [row[0] for row in table("spec/ids.tsv", "id", "asks for", "sections")]
        rows = [row[0] for row in table("features.tsv", *HEAD)]
        self.assertEqual([key for key in rows if not key.startswith("D-")], sorted(wanted))
        self.assertEqual(len(wanted), 540)

    def test_table(self) -> None:
        """Four columns, one row an id, in order; what works names a test that is there."""
        rows = table("features.tsv", *HEAD)
        ids = [row[0] for row in rows]
        self.assertEqual(ids, sorted(set(ids)))
        for row in rows:
            self.assertEqual(len(row), 4, row)
            key, feature, state, proof = row
            self.assertIn(state, STATES, key)
            self.assertTrue((feature and proof) or state == "absent", f"{key}: {state}, why?")
            names = proofs(proof)
            if state == "works":
                self.assertTrue(names, f"{key} names no test")
            wrong = {name: missing(name) for name in names if missing(name)}
            self.assertEqual(wrong, {}, key)
