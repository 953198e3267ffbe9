"""Reads the log of a live server: which of its records no server should write."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

# twisted.logger begins each record with its time and `[namespace#level]`; what follows
# without them (tracebacks, what the interpreter says) belongs to the record before.
_RECORD = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[", re.MULTILINE)
_FAULT = re.compile(
    r"\A\S+ \[[^\]\n]*#critical\]"
    r"|Traceback \(most recent call last\)|Exception ignored in|Fatal Python error"
    r"|was never awaited"
)
_LONGEST = 6000  # characters of a record that are told


def records(text: str) -> Iterator[str]:
    """Yield the records of a log in their order."""
    begins = [0, *(found.start() for found in _RECORD.finditer(text)), len(text)]
    for first, last in itertools.pairwise(begins):
        if text[first:last].strip():
            yield text[first:last]


def faults(text: str, expected: Sequence[str]) -> list[str]:
    """Return the records that tell of a failure that nobody foresaw.

    Those are critical ones and tracebacks; one that has any text of `expected` is left out.
    """
    return [
        one[:_LONGEST] for one in records(text)
        if _FAULT.search(one) and not any(known in one for known in expected)
    ]
