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
        return ast.literal_eval(line.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, UnicodeDecodeError):
        raise Invalid("a message of the legacy protocol is not a literal") from None
