"""Mode `pickle4` of the legacy protocol, which packages of version 10.0 insist on (design D6).

Only plain built-in values are read: a global of any kind is refused, so
nothing can be called or imported. Sizes are bounded before decoding.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

from walt.common.errors import Invalid

PROTOCOL = 4
MAX_PICKLE = 16 * 1024
_PROTO = b"\x80"  # first byte of any pickle since protocol 2


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise Invalid("a pickled message may hold plain values only")

    def persistent_load(self, pid: Any) -> Any:
        raise Invalid("a pickled message may hold plain values only")


def first_pickle(data: bytes) -> int | None:
    """Return the size of the pickle that begins `data`, None while its end is missing.

    Raises Invalid for bytes that are no pickle, or above the limit.
    """
    if data[:1] not in (b"", _PROTO):
        raise Invalid("not a pickled message")
    try:
        for opcode, _, position in pickletools.genops(io.BytesIO(data[:MAX_PICKLE])):
            if opcode.name == "STOP":
                return (position or 0) + 1
    except Exception:
        # What is cut is reported in the same way as what is wrong: the bound decides.
        if len(data) >= MAX_PICKLE:
            raise Invalid("not a pickled message, or too long") from None
    return None


def load(data: bytes) -> Any:
    """Return the value of one pickle of plain types. Raises Invalid."""
    try:
        return _Plain(io.BytesIO(data)).load()
    except Invalid:
        raise
    except Exception:
        # Damaged pickles raise nearly anything, as the pickle module documents.
        raise Invalid("a pickled message cannot be read") from None


def dump(value: Any) -> bytes:
    """Return the pickle of a value."""
    return pickle.dumps(value, PROTOCOL)
