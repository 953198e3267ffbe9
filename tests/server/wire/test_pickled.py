"""Pickles of old peers: plain values pass, nothing else does."""

from __future__ import annotations

import os
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid
from walt.server.wire.pickled import MAX_PICKLE, MORE, Reader, dump

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=50)
    | st.floats(allow_nan=False) | st.binary(max_size=50),
    lambda values: st.lists(values, max_size=5) | st.tuples(values, values)
    | st.dictionaries(st.text(max_size=10), values, max_size=5),
    max_leaves=6,
)


def take(data: bytes) -> tuple[Any, int] | None:
    """Return the value of the pickle that begins `data` and its size, None while cut."""
    reader = Reader()
    reader.add(data)
    value = reader.take()
    return None if value is MORE else (value, len(data) - len(reader))


class Evil:
    """Would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/walt-owned",)


class PickledTests(SynchronousTestCase):
    @given(PLAIN, st.binary(max_size=20), st.integers(3, 5))
    def test_plain_values(self, value: Any, more: bytes, protocol: int) -> None:
        """They arrive as they are, and the size tells where the next message begins."""
        data = pickle.dumps(value, protocol)
        self.assertEqual(take(data + more), (value, len(data)))

    @given(PLAIN)
    def test_cut(self, value: Any) -> None:
        """The beginning of a message is waited for."""
        data = dump(value)
        for size in range(len(data)):
            self.assertIsNone(take(data[:size]))

    @given(st.binary(max_size=300))
    def test_anything(self, data: bytes) -> None:
        """Any bytes are a value, incomplete, or Invalid."""
        for prefix in (b"", b"\x80\x04", b"\x80\x04\x95\x10\0\0\0\0\0\0\0"):
            try:
                take(prefix + data)
            except Invalid:
                pass

    def test_hostile(self) -> None:
        """What names, calls, builds, refers outside, or wants a huge table; what is too long."""
        table = b"\x80\x04Nr\xff\xff\xff\x7f."
        for data in (
            pickle.dumps(Evil(), 4), pickle.dumps(Evil(), 2), pickle.dumps(os.system, 4),
            b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"\x80\x02cos\nsystem\n.", b"\x80\x04Pid\n.",
            b"\x80\x04NQ.", b"\x80\x02\x82\x01.", table, b"\x80\x04p99999999\n.",
            dump("x" * MAX_PICKLE),
        ):
            self.assertRaises(Invalid, take, data)

    def test_trees(self) -> None:
        """What is small as bytes and endless as a tree is refused before it is made."""
        twice = b"N" + b"2\x86" * 60  # DUP, TUPLE2
        memo = b"N\x94" + b"".join(b"h%c\x86\x94" % number for number in range(60))
        shared: list[object] = []
        for _ in range(60):
            shared = [shared, shared]
        recursive: list[object] = []
        recursive.append(recursive)
        for data in (
            b"\x80\x04" + twice + b".", b"\x80\x04}" + twice + b"Ns.", b"\x80\x04}" + memo + b"Ns.",
            b"\x80\x04\x8f(" + twice + b"\x90.", b"\x80\x04}))\x86Ns.", b"\x80\x04\x8f()\x85\x90.",
            pickle.dumps(shared, 4), pickle.dumps(shared, 2), pickle.dumps(recursive, 4),
            pickle.dumps({(1, 2): 3}, 4), pickle.dumps({frozenset((1,))}, 4),
            b"\x80\x04\x8c\xc8" + b"a" * 200 + b"\x94(" + b"h\0" * 3000 + b"t.",
            b"\x80\x04" + b")" + b"\x85" * 10_000 + b".", dump(1 << 63), dump(10**400),
        ):
            self.assertRaises(Invalid, take, data)
        name = "a text that is there twice"
        again = (name, [name, name], {name: name})
        for protocol in (3, 4, 5):
            data = pickle.dumps(again, protocol)
            self.assertEqual(take(data), (again, len(data)))
