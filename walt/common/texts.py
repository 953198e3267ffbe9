"""JSON of other programs, whose texts can be written down again."""

import json
from typing import Any


def load_json(data: bytes) -> Any:
    r"""Return the value of a JSON text.

    Halves of surrogate pairs (`"\ud800"`) are no characters: programs and databases
    refuse them, and json.loads does not. Raises ValueError, also for what is nested too
    deeply.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if b"\\ud" in data.lower() or b"\xed" in data:  # the two ways to write one
        json.dumps(value, ensure_ascii=False).encode()
    return value
