"""Coverage-guided fuzzing of one target: `python -m tests.fuzz TARGET [-max_total_time=60…]`."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

# Of the target that tries pysnmp, its own paths count.
INSTRUMENTED = ["walt", "pysnmp", "pyasn1"] if "replies" in sys.argv[1:2] else ["walt"]
with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.fuzz.targets import LIMIT, TARGETS, run

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Run libFuzzer on the target named first; new inputs go where its options say."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{'|'.join(TARGETS)}}} [options of libFuzzer]")
    limit = f"-timeout={LIMIT:g}"  # an option that follows wins
    options = [sys.argv[0], limit, *sys.argv[1:], str(CORPUS / name)]
    atheris.Setup(options, lambda data: run(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
