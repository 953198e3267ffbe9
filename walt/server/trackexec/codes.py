"""The codes of an execution record: 32 bits, three for the kind, 29 for the rest.

For places in the sources the rest is 13 bits of file and 16 of line; for `RESUME` the number
of an invocation; for moments a part of the time in microseconds since 1970.
"""

from __future__ import annotations

LINE, ENTER, LEAVE, SUSPEND, RESUME, EARLY, LATE = range(7)

# What a moment is.
IDLE, BUSY, EXACT, CUT = range(4)

_REST = 29
_MASK = (1 << _REST) - 1
FILES = 1 << 13
LINES = 1 << 16
INVOCATIONS = 1 << _REST


def place(kind: int, file: int, line: int) -> int:
    """Return the code of a place: a statement, or a function that begins, ends or waits."""
    return kind << _REST | file << 16 | line


def resumed(number: int) -> int:
    """Return the code with which an invocation of a coroutine or generator goes on."""
    return RESUME << _REST | number & _MASK


def moment(what: int, microseconds: int) -> tuple[int, int]:
    """Return the two codes of a time: the upper part with what happens then, the lower part."""
    early = microseconds >> _REST & (1 << 27) - 1
    return EARLY << _REST | what << 27 | early, LATE << _REST | microseconds & _MASK


def kind(code: int) -> int:
    """Return the kind of a code."""
    return code >> _REST


def file_of(code: int) -> int:
    """Return the file of a place."""
    return code >> 16 & FILES - 1


def line_of(code: int) -> int:
    """Return the line of a place."""
    return code & LINES - 1


def number_of(code: int) -> int:
    """Return the invocation that goes on."""
    return code & _MASK


def what_of(early: int) -> int:
    """Return what happens at a moment."""
    return early >> 27 & 3


def time_of(early: int, late: int) -> tuple[int, int]:
    """Return what happens at a moment, and when, in microseconds since 1970."""
    return what_of(early), (early & (1 << 27) - 1) << _REST | late & _MASK
