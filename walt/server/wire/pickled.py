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


# What plain values are made of. No opcode that names, calls or builds anything is here.
_PLAIN = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND",
    "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET",
    "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET",
))
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))


def take(data: bytes) -> tuple[Any, int] | None:
    """Return the value of the pickle that begins `data` and its size, None while cut.

    Raises Invalid for bytes that are no pickle, for what is not a plain value,
    or above the limit.
    """
    if data[:1] not in (b"", _PROTO):
        raise Invalid("not a pickled message")
    size = _size(data[:MAX_PICKLE])
    if size is None:
        if len(data) >= MAX_PICKLE:
            raise Invalid("not a pickled message, or too long")
        return None
    try:
        return _Plain(io.BytesIO(data[:size])).load(), size
    except Invalid:
        raise
    except Exception:
        # Damaged pickles raise nearly anything, as the pickle module documents.
        raise Invalid("a pickled message cannot be read") from None


def _size(data: bytes) -> int | None:
    """Return where a pickle of plain values ends, None where it is cut. Raises Invalid."""
    opcodes = pickletools.genops(io.BytesIO(data))
    while True:
        try:
            opcode, argument, position = next(opcodes)
        except Exception:
            # What is cut is reported in the same way as what is wrong: the bound decides.
            return None
        if opcode.name not in _PLAIN:
            raise Invalid("a pickled message may hold plain values only")
        if opcode.name in _PUTS and not 0 <= int(argument or 0) < MAX_PICKLE:
            # The decoder would allocate a table of that many places.
            raise Invalid("a pickled message numbers its values too high")
        if opcode.name == "STOP":
            return (position or 0) + 1


def dump(value: Any) -> bytes:
    """Return the pickle of a value."""
    return pickle.dumps(value, PROTOCOL)
