"""What may be absent where the tests run: tests that need it may be skipped, others may not.

The packages of `scripts/packages.mk` and root's rights are part of a run: a test
that does without them is no test. The runner counts each skip whose reason is
not made here as a failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def _beside() -> Path:
    """Return the directory `shared` beside the repository, or beside what its worktree is in."""
    above = Path(__file__).resolve().parents[2:]
    return next((one for up in above if (one := up / "shared").is_dir()), above[0] / "shared")


BESIDE = _beside()
_HARDWARE = "needs hardware: "
_DATA = "needs data beside the repository: "
_PYTHON = "needs an interpreter that the distribution does not have: Python "
_RULE = "=" * 79
_COUNT = re.compile(r"\bskips=(\d+)")


def without_hardware(device: str | Path) -> str | None:
    """Return why a test that needs a device file is skipped, None if it is there."""
    return None if Path(device).exists() else f"{_HARDWARE}{device}"


def without_data(name: str) -> str | None:
    """Return why a test of data kept in `../shared` is skipped, None if they are there."""
    return None if (BESIDE / name).exists() else f"{_DATA}shared/{name}"


def without_python(version: str) -> str:
    """Return why a test that runs the client on an old Python is skipped.

    No package of the distribution brings one (design D18: where one is present).
    """
    return f"{_PYTHON}{version}"


def declared(reason: str) -> bool:
    """Tell whether a test may be skipped for this reason."""
    return reason.startswith((_HARDWARE, _DATA, _PYTHON))


def skipped(output: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the reasons for skips that trial tells at its end, and the tests of each."""
    for block in output.split(f"\n{_RULE}\n")[1:]:
        if block.startswith("[SKIPPED]\n"):
            # The last block goes on with a line of dashes and trial's counts.
            told = block.removeprefix("[SKIPPED]\n").partition(f"\n{_RULE.replace('=', '-')}")[0]
            reason, _, names = told.rpartition("\n\n")
            yield reason.strip(), names.split()


def undeclared(output: str) -> list[str]:
    """Return a line for each test that one run of trial skipped and that should have run."""
    told, found = [], 0
    for reason, names in skipped(output):
        found += len(names)
        if not declared(reason):
            told += [f"{name} was skipped: {reason}" for name in names]
    counted = sum(int(one) for one in _COUNT.findall("\n".join(output.splitlines()[-5:])))
    return told + ["a test was skipped, trial does not tell which"] * (counted - found)
