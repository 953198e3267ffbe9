"""Mode `pickle4` of the legacy protocol, which packages of version 10.0 insist on (design D6).

Pickles are programs for a machine with a stack (pickletools). This one knows the operations
that make plain built-in values, and no other: nothing can be called or imported. What a
message shares, or nests, is counted as if it was written out, so that no short message
stands for a long value; containers are no keys, whose hash would visit all of them.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from walt.common.errors import Invalid

PROTOCOL = 4
MAX_PICKLE = 16 * 1024  # bytes
MAX_VALUES = MAX_PICKLE  # in a message, written out
MAX_DEPTH = 16
_PROTO = b"\x80"  # first byte of any pickle since protocol 2

_SCALARS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_FRAMING = frozenset(("PROTO", "FRAME", "STOP"))


@dataclass
class _Value:
    """What is on the stack: a value, and what it is made of, written out."""

    value: Any
    count: int = 1
    depth: int = 0
    changes: bool = False  # a list, dictionary or set: more may be put into it

    @property
    def is_key(self) -> bool:
        """Whether it may be a key, or a member of a set."""
        return self.depth == 0


class _Mark:
    """Where the parts of a container begin on the stack."""


class _Machine:
    """The stack and the memory of one message."""

    def __init__(self) -> None:
        self._stack: list[_Value | _Mark] = []
        self._memory: dict[int, _Value] = {}
        self._operations: dict[str, Callable[[], None]] = {
            "MARK": lambda: self._stack.append(_Mark()),
            "POP": self._pop, "POP_MARK": self._drop_to_mark,
            "EMPTY_TUPLE": lambda: self._tuple([]), "TUPLE": lambda: self._tuple(self._parts()),
            "TUPLE1": lambda: self._tuple(self._take(1)),
            "TUPLE2": lambda: self._tuple(self._take(2)),
            "TUPLE3": lambda: self._tuple(self._take(3)),
            "EMPTY_LIST": lambda: self._container([]), "LIST": self._list,
            "APPEND": lambda: self._extend(self._take(1)),
            "APPENDS": lambda: self._extend(self._parts()),
            "EMPTY_DICT": lambda: self._container({}), "DICT": self._dict,
            "SETITEM": lambda: self._set(self._take(2)),
            "SETITEMS": lambda: self._set(self._parts()),
            "EMPTY_SET": lambda: self._container(set()),
            "ADDITEMS": lambda: self._add(self._parts()), "FROZENSET": self._frozenset,
            "MEMOIZE": lambda: self._remember(len(self._memory)),
        }

    def do(self, name: str, argument: Any) -> None:
        """Do one operation. Raises Invalid."""
        if name in _SCALARS:
            self._push(_Value(argument))
        elif name in _CONSTANTS:
            self._push(_Value(_CONSTANTS[name]))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._remember(int(argument))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._recall(int(argument))
        elif name in self._operations:
            self._operations[name]()
        elif name not in _FRAMING:
            raise Invalid("a pickled message may hold plain values only")

    def result(self) -> Any:
        """Return the value that is left. Raises Invalid."""
        return self._take(1)[0].value

    def _push(self, value: _Value) -> None:
        if value.count > MAX_VALUES or value.depth > MAX_DEPTH:
            raise Invalid("a pickled message is too large, or nested too deeply")
        self._stack.append(value)

    def _take(self, number: int) -> list[_Value]:
        """Take values from the top of the stack, in the order they were put there."""
        taken = self._stack[len(self._stack) - number:]
        if len(taken) < number:
            raise Invalid("a pickled message lacks a value")
        del self._stack[len(self._stack) - number:]
        return [self._as_value(one) for one in taken]

    @staticmethod
    def _as_value(one: _Value | _Mark) -> _Value:
        if isinstance(one, _Mark):
            raise Invalid("a pickled message lacks a value")
        return one

    def _parts(self) -> list[_Value]:
        """Take what is above the last mark, and the mark."""
        for place in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[place], _Mark):
                parts = self._stack[place + 1:]
                del self._stack[place:]
                return [self._as_value(one) for one in parts]
        raise Invalid("a pickled message lacks a mark")

    def _pop(self) -> None:
        if not self._stack:
            raise Invalid("a pickled message lacks a value")
        self._stack.pop()

    def _drop_to_mark(self) -> None:
        self._parts()

    def _top(self, kind: type) -> _Value:
        top = self._stack[-1] if self._stack else None
        if not isinstance(top, _Value) or type(top.value) is not kind:
            raise Invalid("a pickled message puts a value where there is no container")
        return top

    # -- containers: the value, then how much it is written out

    def _container(self, value: Any) -> None:
        self._push(_Value(value, depth=1, changes=True))

    def _tuple(self, parts: list[_Value]) -> None:
        whole = _Value(tuple(one.value for one in parts), depth=1)
        self._grow(whole, parts)
        self._push(whole)

    def _frozenset(self) -> None:
        members = self._keys(self._parts())
        self._push(_Value(
            frozenset(one.value for one in members), count=1 + len(members), depth=1
        ))

    def _list(self) -> None:
        parts = self._parts()
        self._container([])
        self._extend(parts)

    def _dict(self) -> None:
        parts = self._parts()
        self._container({})
        self._set(parts)

    def _extend(self, parts: list[_Value]) -> None:
        top = self._top(list)
        self._grow(top, parts)
        top.value.extend(one.value for one in parts)

    def _set(self, parts: list[_Value]) -> None:
        if len(parts) % 2:
            raise Invalid("a pickled message lacks a value")
        top = self._top(dict)
        self._grow(top, parts)
        top.value.update({
            key.value: one.value
            for key, one in zip(self._keys(parts[::2]), parts[1::2], strict=True)
        })

    def _add(self, parts: list[_Value]) -> None:
        top = self._top(set)
        self._grow(top, parts)
        top.value.update(one.value for one in self._keys(parts))

    @staticmethod
    def _keys(parts: list[_Value]) -> list[_Value]:
        if not all(one.is_key for one in parts):
            raise Invalid("a pickled message uses a container as a key")
        return parts

    @staticmethod
    def _grow(whole: _Value, parts: list[_Value]) -> None:
        whole.count += sum(one.count for one in parts)
        whole.depth = max([whole.depth, *(one.depth + 1 for one in parts)])
        if whole.count > MAX_VALUES or whole.depth > MAX_DEPTH:
            raise Invalid("a pickled message is too large, or nested too deeply")

    # -- memory

    def _remember(self, number: int) -> None:
        if not self._stack:
            raise Invalid("a pickled message lacks a value")
        self._memory[number] = self._as_value(self._stack[-1])

    def _recall(self, number: int) -> None:
        found = self._memory.get(number)
        # One that changes could be put into itself.
        if found is None or found.changes:
            raise Invalid("a pickled message refers to what it may not")
        self._push(found)


def take(data: bytes) -> tuple[Any, int] | None:
    """Return the value of the pickle that begins `data` and its size, None while cut.

    Raises Invalid for bytes that are no pickle, for what is not a plain value,
    or above the limits.
    """
    if data[:1] not in (b"", _PROTO):
        raise Invalid("not a pickled message")
    machine = _Machine()
    operations = pickletools.genops(io.BytesIO(data[:MAX_PICKLE]))
    while True:
        try:
            operation, argument, position = next(operations)
        except Exception:
            # What is cut is reported in the same way as what is wrong: the bound decides.
            if len(data) >= MAX_PICKLE:
                raise Invalid("not a pickled message, or too long") from None
            return None
        machine.do(operation.name, argument)
        if operation.name == "STOP":
            return machine.result(), (position or 0) + 1


def dump(value: Any) -> bytes:
    """Return the pickle of a value."""
    return pickle.dumps(value, PROTOCOL)
