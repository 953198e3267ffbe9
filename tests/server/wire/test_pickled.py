"""Pickles of old peers: plain values pass, nothing else does."""

from __future__ import annotations

import os
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid
from walt.server.wire.pickled import MAX_PICKLE, dump, take

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=50)
    | st.floats(allow_nan=False) | st.binary(max_size=50),
    lambda values: st.lists(values, max_size=5) | st.tuples(values, values)
    | st.dictionaries(st.text(max_size=10), values, max_size=5),
    max_leaves=20,
)


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
        """What names, calls, builds or refers outside; what is too long."""
        for data in (
            pickle.dumps(Evil(), 4), pickle.dumps(Evil(), 2), pickle.dumps(os.system, 4),
            b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"\x80\x02cos\nsystem\n.", b"\x80\x04Pid\n.",
            b"\x80\x04NQ.", b"\x80\x02\x82\x01.", b"\x80\x04N2.",
            dump("x" * MAX_PICKLE),
        ):
            self.assertRaises(Invalid, take, data)

    def test_short_messages_of_endless_values(self) -> None:
        """What shares, nests or hashes without end is refused, and costs nothing."""
        shared: Any = ("x",)
        for _ in range(40):
            shared = (shared, shared)
        deep: Any = ()
        for _ in range(200):
            deep = (deep,)
        loop: list[Any] = []
        loop.append(loop)
        for value in (
            shared, {"path": shared}, deep, {("a", "b"): 1}, {frozenset((1,)): 2},
            frozenset(((1, 2),)), loop, ([], {}, {1: loop}),
        ):
            self.assertRaises(Invalid, take, dump(value))
        parts = pickle.dumps(shared, 2)[2:-1]
        for data in (b"}" + parts + b"K\x01s", parts + b"(" + parts + b"K\x01d",
                     b"\x8f(" + parts + b"\x90", b"(" + parts + b"\x91"):
            self.assertRaises(Invalid, take, b"\x80\x04" + data + b".")

    def test_shared_values(self) -> None:
        """What a message says twice may be written once."""
        pair = ("a", "b")
        for value in ((pair, pair), ["word" * 10] * 3, {"a": pair, "b": pair}):
            self.assertEqual(take(dump(value)), (value, len(dump(value))))

    @given(st.lists(st.sampled_from([
        b"(", b"0", b"1", b"N", b"K\x01", b")", b"t", b"\x85", b"\x86", b"\x87", b"]", b"l", b"a",
        b"e", b"}", b"d", b"s", b"u", b"\x8f", b"\x90", b"\x91", b"\x94", b"h\0", b"h\1", b"q\0",
        b"\x8c\1a",
    ]), max_size=60))
    def test_any_operations(self, operations: list[bytes]) -> None:
        """Any sequence of operations is a value or Invalid, as the decoder of Python has it."""
        data = b"\x80\x04" + b"".join(operations) + b"."
        try:
            found = take(data)
        except Invalid:
            return
        assert found is not None
        self.assertEqual(found, (pickle.loads(data), len(data)))
