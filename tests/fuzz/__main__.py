"""Coverage-guided fuzzing of one target: `python -m tests.fuzz TARGET [-max_total_time=60…]`."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["walt"]):
    from tests.fuzz.targets import TARGETS, run

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Run libFuzzer on the target named first; new inputs go where its options say."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{'|'.join(TARGETS)}}} [options of libFuzzer]")
    # Beside the limit of time of `run`, one that also ends what is busy outside of Python.
    limits = ["-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup(
        [sys.argv[0], *limits, *sys.argv[1:], str(CORPUS / name)], lambda data: run(name, data)
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
