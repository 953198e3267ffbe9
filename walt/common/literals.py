"""Values of the legacy line protocol: one Python literal a line (spec node-protocols §7.0).

Parsed as data (`ast.literal_eval`), never evaluated; bounded before parsing,
because deep nesting costs the parser memory and time.
"""

from __future__ import annotations

import ast
from typing import Any

from walt.common.errors import Invalid

MAX_LINE = 16 * 1024
MAX_DEPTH = 8
MAX_NUMBER = 1 << 63  # a number with more digits can neither be shown nor stored
_KEPT = (tuple, frozenset)  # containers that can be keys
_OPENING, _CLOSING = frozenset(b"([{"), frozenset(b")]}")


def parse(line: bytes) -> Any:
    """Return the value of a literal of plain types. Raises Invalid."""
    if len(line) > MAX_LINE:
        raise Invalid("a message of the legacy protocol is too long")
    depth = 0
    for byte in line:
        if byte in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise Invalid("a message of the legacy protocol is nested too deeply")
        elif byte in _CLOSING:
            depth -= 1
    try:
        value = ast.literal_eval(line.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, UnicodeDecodeError):
        raise Invalid("a message of the legacy protocol is not a literal") from None
    check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Raise Invalid unless a value is small as a tree.

    Nested MAX_DEPTH times at most, with whole numbers of 64 bits, and no containers as
    keys or members of sets: finding these takes the time of all that they hold.
    """
    pending = [(value, 1)]
    while pending:
        part, depth = pending.pop()
        if isinstance(part, int) and not -MAX_NUMBER <= part < MAX_NUMBER:
            raise Invalid("a message of the legacy protocol holds a number that is too large")
        if not isinstance(part, list | tuple | dict | set | frozenset):
            continue
        if depth > MAX_DEPTH:
            raise Invalid("a message of the legacy protocol is nested too deeply")
        if isinstance(part, dict | set | frozenset) and any(isinstance(key, _KEPT) for key in part):
            raise Invalid("a message of the legacy protocol holds a container as a key")
        pending.extend((inside, depth + 1) for inside in part)
        if isinstance(part, dict):
            pending.extend((inside, depth + 1) for inside in part.values())
