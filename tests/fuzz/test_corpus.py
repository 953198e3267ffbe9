"""Every hostile input known so far, replayed."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.targets import TARGETS, run

CORPUS = Path(__file__).parent / "corpus"


class CorpusTests(SynchronousTestCase):
    def replay(self, name: str) -> None:
        """Run the files of one target."""
        files = sorted((CORPUS / name).iterdir())
        self.assertTrue(files, name)
        for file in files:
            run(name, file.read_bytes())
            # What is refused is logged, not raised: nothing may be a failure.
            self.assertEqual(self.flushLoggedErrors(), [], file)

    def test_every_target_has_a_corpus(self) -> None:
        """No target is forgotten."""
        self.assertEqual({path.name for path in CORPUS.iterdir()}, set(TARGETS))


for _name in TARGETS:
    setattr(
        CorpusTests, f"test_{_name}",
        lambda self, name=_name: self.replay(name),  # type: ignore[misc]
    )
