"""Log records on the wire."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.records import MAX_BLOCK, Block, Blocks, block_of, decode, encode

NAMES = {"a": "node-1", "b": "node-2"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
RECORDS = st.lists(st.tuples(
    st.integers(-2**50, 2**50).map(lambda micros: micros / 1_000_000), st.sampled_from("ab"),
    TEXTS, TEXTS,
), max_size=8)


class RecordsTests(SynchronousTestCase):
    @given(st.lists(RECORDS, max_size=3), st.integers(1, 50))
    def test_any(self, groups: list[list[tuple[float, str, str, str]]], step: int) -> None:
        """What is written is read, with the names of issuers, however it is cut on its way."""
        wire = b"".join(encode(block_of(records), NAMES) for records in groups)
        arriving = Blocks()
        found = [
            decode(data) for start in range(0, len(wire), step)
            for data in arriving.feed(wire[start:start + step])
        ]
        self.assertEqual([block.records() for block in found], [
            [(stamp, NAMES[issuer], *more) for stamp, issuer, *more in records]
            for records in groups
        ])
        for block, records in zip(found, groups, strict=True):
            self.assertEqual(len(block), len(records))
            self.assertEqual(block.texts(), [text for *_, text in records])

    def test_form(self) -> None:
        """Two sources, what is no ASCII, a newline inside: the octets of the module's page."""
        sources = b'[["node-1", "s"], ["node-2", "s"]]'
        body = (
            struct.pack(">II", 2, len(sources)) + sources
            + struct.pack(">qqiiii", 1_500_000, -1_000_000, 0, 1, 3, 0) + "é\n".encode()
        )
        self.assertEqual(
            encode(block_of([(1.5, "a", "s", "é\n"), (-1.0, "b", "s", "")]), NAMES),
            struct.pack(">I", len(body)) + body,
        )

    def test_moments_are_microseconds(self) -> None:
        """As the database stores them."""
        [record] = block_of([(59.9999999, "a", "s", "x")]).records()
        self.assertEqual(record[0], 60.0)

    def test_what_cannot_have_been_written(self) -> None:
        """Refused before anything is made of it."""
        whole = encode(block_of([(1.5, "a", "s", "xy"), (2.0, "b", "t", "z")]), NAMES)[4:]
        self.assertIsInstance(decode(whole), Block)
        for end in range(len(whole)):
            self.assertRaises((ValueError, struct.error), decode, whole[:end])
        size = struct.unpack_from(">I", whole, 4)[0]
        columns = 8 + size
        for place, value in (
            (0, 2**31), (4, 2**31), (columns + 16, 2), (columns + 16, 2**32 - 1),
            (columns + 24, 1), (columns + 24, 2**32 - 1),
        ):
            changed = bytearray(whole)
            struct.pack_into(">I", changed, place, value)
            self.assertRaises(ValueError, decode, bytes(changed))
        self.assertRaises(ValueError, decode, whole[:-1] + b"\xff")
        self.assertRaises(ValueError, Blocks().feed, struct.pack(">I", MAX_BLOCK + 1))
        for sources in (b"1", b"[1]", b"[[1, 2]]", b'[["a"]]', b"{", b"[" * 100_000):
            wrong = struct.pack(">II", 0, len(sources)) + sources
            self.assertRaises(
                (ValueError, TypeError, LookupError, RecursionError), decode, wrong
            )

    @given(st.binary(max_size=60))
    def test_any_octets(self, data: bytes) -> None:
        """Read, or refused in ways that are told."""
        try:
            decode(data).records()
        except (ValueError, TypeError, LookupError, struct.error):
            pass
