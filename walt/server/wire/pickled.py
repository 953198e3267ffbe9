"""Mode `pickle4` of the legacy protocol, which packages of version 10.0 insist on (design D6).

Only plain built-in values are read: a global of any kind is refused, so
nothing can be called or imported. Sizes are bounded before decoding, and counted as trees:
a container that is there twice would let 60 bytes stand for more than any memory holds.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

from walt.common.errors import Invalid
from walt.common.literals import check_plain

PROTOCOL = 4
MAX_PICKLE = 16 * 1024
MAX_TREE = 64 * 1024  # bytes and values, with texts counted each time they are there
_PROTO = b"\x80"  # first byte of any pickle since protocol 2
MORE = object()  # what a cut pickle is read as


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise Invalid("a pickled message may hold plain values only")

    def persistent_load(self, pid: Any) -> Any:
        raise Invalid("a pickled message may hold plain values only")


# What plain values are made of. No opcode that names, calls or builds anything is here.
_LEAVES = frozenset((
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
))
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_PLAIN = _LEAVES | _PUTS | _GETS | frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND",
    "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET",
))


class Reader:
    """Reads pickles that come in pieces: each byte is looked at once, however small they are."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._start_again()

    def _start_again(self) -> None:
        self._read = 0  # bytes of whole opcodes
        self._tree = _Tree()

    def add(self, data: bytes) -> None:
        """Take more bytes."""
        self._data += data

    def __len__(self) -> int:
        """Return the number of bytes that no value was made of."""
        return len(self._data)

    def rest(self) -> bytes:
        """Return the bytes that no value was made of."""
        return bytes(self._data)

    def take(self) -> Any:
        """Return the next value, MORE while it is cut.

        Raises Invalid for bytes that are no pickle, for what is not a plain value,
        or above the limit.
        """
        if self._data[:1] not in (b"", _PROTO):
            raise Invalid("not a pickled message")
        if not self._find_end():
            if len(self._data) >= MAX_PICKLE:
                raise Invalid("not a pickled message, or too long")
            return MORE
        data = bytes(self._data[:self._read])
        del self._data[:self._read]
        self._start_again()
        try:
            value = _Plain(io.BytesIO(data)).load()
            check_plain(value)
            return value
        except Invalid:
            raise
        except Exception:
            # Damaged pickles raise nearly anything, as the pickle module documents.
            raise Invalid("a pickled message cannot be read") from None

    def _find_end(self) -> bool:
        """Look at the opcodes that came; tell whether they end a pickle. Raises Invalid."""
        stream = io.BytesIO(bytes(self._data[self._read:MAX_PICKLE]))
        start, opcodes = self._read, pickletools.genops(stream)
        while True:
            try:
                opcode, argument, _ = next(opcodes)
            except Exception:
                # What is cut is reported in the same way as what is wrong: the bound decides.
                return False
            if opcode.name not in _PLAIN:
                raise Invalid("a pickled message may hold plain values only")
            self._read = start + stream.tell()
            if opcode.name == "STOP":
                return True
            self._tree.add(opcode.name, argument)


class _Tree:
    """Counts the values of a pickle; only leaves may be there more than once."""

    def __init__(self) -> None:
        self._size = 0
        self._top: int | None = None  # size of the newest value, None for a container
        self._memo: dict[int, int | None] = {}

    def add(self, name: str, argument: Any) -> None:
        """Count an opcode. Raises Invalid."""
        if name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top
        elif name in _PUTS:
            number = int(argument)
            if not 0 <= number < MAX_PICKLE:
                # The decoder would allocate a table of that many places.
                raise Invalid("a pickled message numbers its values too high")
            self._memo[number] = self._top
        elif name in _GETS:
            self._top = self._memo.get(int(argument))
            if self._top is None:
                raise Invalid("a pickled message may hold a tuple, list or dictionary only once")
        elif name in _LEAVES:
            self._top = len(argument) if isinstance(argument, str | bytes) else 1
        elif name not in ("PROTO", "FRAME"):
            self._top = None
        self._size += 1 if self._top is None else 1 + self._top
        if self._size > MAX_TREE:
            raise Invalid("a pickled message is too long")


def dump(value: Any) -> bytes:
    """Return the pickle of a value."""
    return pickle.dumps(value, PROTOCOL)
