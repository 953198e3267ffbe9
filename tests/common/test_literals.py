"""Literals of the legacy protocol: data only, bounded before parsing."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid
from walt.common.literals import MAX_LINE, parse

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=6,
)


class LiteralTests(SynchronousTestCase):
    @given(PLAIN)
    def test_plain_values(self, value: object) -> None:
        """What repr() writes is read back, or refused for its depth alone."""
        line = repr(value).encode()
        try:
            self.assertEqual(parse(line), value)
        except Invalid:
            self.assertGreater(sum(line.count(one) for one in (b"(", b"[")), 8)

    @given(st.binary(max_size=300))
    def test_garbage(self, line: bytes) -> None:
        """Any bytes give a value or Invalid."""
        try:
            parse(line)
        except Invalid:
            pass

    def test_hostile(self) -> None:
        """Expressions are not evaluated; depth and length do not reach the parser."""
        marker = self.mktemp()
        for line in (
            f"__import__('os').mkdir({marker!r})".encode(),
            f"[].__class__.__base__.__subclasses__() or open({marker!r}, 'w')".encode(),
            b"(lambda: 1)()", b"1 if 1 else 2", b"'a' * 1000000000", b"f'{1}'", b"x",
            b"(" * 5000 + b")" * 5000, b"[" * 9 + b"]" * 9, b"-" * 10_000 + b"1",
            b"~" * 10_000 + b"1", b"1+" * 8000 + b"1", b"9" * 10_000, b"a." * 5000 + b"a",
            b"'" + bytes(MAX_LINE) + b"'", b"\0", b"\xff", b"", b"'unfinished", b"(1,",
            b"0x" + b"f" * 17, b"-0x8000000000000001", b"{(1,): 2}", b"{((1, 2), 3)}",
            b"[')))))))))', [[[[[[[[1]]]]]]]]]",
        ):
            self.assertRaises(Invalid, parse, line)
        self.assertFalse(os.path.exists(marker))
