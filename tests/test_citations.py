"""What comments and documents cite of the papers in docs (spec/, design.md) is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PAPERS = ("server", "node-protocols", "user-surface")
READ = ("walt", "tests", "bench", "scripts", "docs", "newsfragments", "twisted")
SUFFIXES = {".py", ".md", ".tsv", ".sql", ".sh", ".mk", ".conf", ".service", ""}
# `spec server §5.1-5.3, §5.5`, `design D2, §8 and D20`; a citation may go on in the next line
# of a comment. What comes before says which paper.
NUMBER = r"(?:§\d+(?:\.\d+)*(?:-\d+(?:\.\d+)*)?|D\d+\b)"
CITED = re.compile(rf"(?P<before>\S+ \S+|\S+) (?P<numbers>{NUMBER}(?:(?:, | and |; ){NUMBER})*)")
PAPER = re.compile(rf"(?:^|[ (,`])(?P<paper>{'|'.join(PAPERS)}|design)$", re.IGNORECASE)
STANDARD = re.compile(r"(?:RFC \d+|PXE 2\.1|ECMA-48|UAX #9|IEEE 802[\w.-]*)$")
HEADING = re.compile(r"^#+ (?:PART )?(\d+(?:\.\d+)*)\b", re.MULTILINE)
DECISION = re.compile(r"^D(\d+) \*\*", re.MULTILINE)


def sections(paper: str) -> set[str]:
    """Return what a paper has: numbers of sections as `§1.2`, decisions as `D7`."""
    path = ROOT / "docs" / ("design.md" if paper == "design" else f"spec/{paper}.md")
    text = path.read_text()
    decisions = DECISION.findall(text) if paper == "design" else []
    return {f"§{one}" for one in HEADING.findall(text)} | {f"D{one}" for one in decisions}


def files() -> Iterator[Path]:
    """Return the text files that may cite."""
    yield ROOT / "README.md"
    for place in READ:
        for path in sorted((ROOT / place).rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES and "corpus" not in path.parts:
                yield path


def joined(text: str) -> str:
    """Return a text on one line, without what begins the lines of comments."""
    return re.sub(r"\s*\n[ \t]*(?:(?:#|--|//) ?)?", " ", text)


def cited(text: str) -> Iterator[tuple[str, str]]:
    """Return each citation of a text: what stands before (the paper, or not), one number."""
    for found in CITED.finditer(joined(text)):
        for number in re.findall(NUMBER, found["numbers"]):
            first, dash, last = number.partition("-")
            yield found["before"], first
            if dash:
                yield found["before"], f"§{last}"


class CitationTests(SynchronousTestCase):
    def test_every_citation(self) -> None:
        """Each section and decision that is cited exists; each § says of which paper it is."""
        known = {paper: sections(paper) for paper in (*PAPERS, "design")}
        wrong = []
        seen = 0
        for path in files():
            where = path.relative_to(ROOT)
            if where == Path("tests/test_citations.py"):
                continue
            own = where.stem if where.parent == Path("docs/spec") else (
                "design" if where == Path("docs/design.md") else None
            )
            try:
                text = path.read_text()
            except UnicodeDecodeError:
                continue
            for before, number in cited(text):
                paper = PAPER.search(before)
                name = paper["paper"].lower() if paper else own
                if name is None:
                    if not number.startswith("D") and not STANDARD.search(before):
                        wrong.append(f"{where}: {before} {number} names no paper")
                    continue
                seen += 1
                if number not in known[name]:
                    wrong.append(f"{where}: {name} has no {number}")
        self.assertEqual("\n".join(wrong), "")
        self.assertGreater(seen, 200)

    def test_reading_of_citations(self) -> None:
        """Lists, ranges and comments of several lines are read whole."""
        self.assertEqual(
            list(cited("# as told (design D2,\n# §8); spec server §5.1-5.3, §5.5")),
            [("told (design", "D2"), ("told (design", "§8"), ("spec server", "§5.1"),
             ("spec server", "§5.3"), ("spec server", "§5.5")],
        )

    def test_paths(self) -> None:
        """The files and directories that the manual of developers names are there."""
        text = (ROOT / "docs/developer.md").read_text()
        named = set(re.findall(r"`((?:walt|tests|docs|bench|scripts)/[\w./-]*)`", text))
        self.assertEqual({one for one in named if not (ROOT / one).exists()}, set())
        self.assertGreater(len(named), 40)

    def test_sections_of_ids(self) -> None:
        """Ids have a section each that exists."""
        known = {"N": "node-protocols", "S": "server", "U": "user-surface"}
        wrong = []
        for line in (ROOT / "docs/spec/ids.tsv").read_text().splitlines()[1:]:
            key, _, places = line.split("\t")
            have = sections(known[key[0]])
            for place in places.split(", "):
                first, _, last = place.removeprefix("P").partition("-")
                if last:
                    last = f"{first.rpartition('.')[0]}.{last}" if "." not in last else last
                wrong.extend(
                    f"{key}: §{one}" for one in (first, last) if one and f"§{one}" not in have
                )
        self.assertEqual(wrong, [])
