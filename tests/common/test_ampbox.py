"""AMP framing with the standard library, against Twisted's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from walt.common import ampbox

KEYS = st.binary(min_size=1, max_size=40).filter(lambda key: b"+" not in key)
BOXES = st.dictionaries(KEYS, st.binary(max_size=300), min_size=1, max_size=6)


def segments(data: bytes, size: int) -> list[bytes]:
    return [data[at:at + size] for at in range(0, len(data), size)]


def decoded(data: bytes, size: int = 1 << 20) -> list[ampbox.Box]:
    decoder = ampbox.Decoder()
    return [box for piece in segments(data, size) for box in decoder.feed(piece)]


class CodecTests(SynchronousTestCase):
    @given(BOXES)
    def test_same_bytes_as_twisted(self, box: dict[bytes, bytes]) -> None:
        """A box without long values is written exactly as Twisted writes it, in the same order."""
        self.assertEqual(
            sorted(ampbox.encode(dict(sorted(box.items())))), sorted(amp.AmpBox(box).serialize())
        )
        self.assertEqual(amp.parseString(ampbox.encode(box)), [amp.AmpBox(box)])

    @given(st.lists(BOXES, max_size=4), st.integers(1, 50))
    def test_any_segments(self, boxes: list[dict[bytes, bytes]], size: int) -> None:
        """What was encoded is decoded, whatever the segments."""
        data = b"".join(ampbox.encode(box) for box in boxes)
        self.assertEqual(decoded(data, size), boxes)

    @given(st.binary(max_size=200))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes give boxes or BadBox, nothing else."""
        try:
            decoded(data)
        except ampbox.BadBox:
            pass

    def test_long_values(self) -> None:
        """Values around and above 65,535 bytes travel in pieces and come back whole."""
        for size in (0, 1, 65_534, 65_535, 65_536, 131_070, 131_071, 1_000_000):
            value = bytes(size)
            [box] = decoded(ampbox.encode({b"value": value, b"other": b"x"}))
            self.assertEqual(ampbox.join_value(b"value", box), value)
            self.assertEqual(box, {b"other": b"x"})

    @given(st.lists(st.tuples(st.binary(max_size=9), st.sampled_from([1, 20_000])), max_size=5))
    def test_values_in_parts(self, parts: list[tuple[bytes, int]]) -> None:
        """A value that is sent as a list of parts is the same to who receives it."""
        value = [part * times for part, times in parts]
        [box] = decoded(ampbox.encode({b"value": value, b"other": b"x"}))
        self.assertEqual(ampbox.join_value(b"value", box), b"".join(value))
        self.assertEqual(box, {b"other": b"x"})

    def test_absent_value(self) -> None:
        """Joining what is not there gives None and changes nothing."""
        box = {b"other": b"x"}
        self.assertIsNone(ampbox.join_value(b"value", box))
        self.assertEqual(box, {b"other": b"x"})

    def test_limits(self) -> None:
        """Keys above 255 bytes, empty keys and values above the whole limit are refused."""
        self.assertRaises(ampbox.BadBox, ampbox.encode, {b"k" * 256: b""})
        self.assertRaises(ampbox.BadBox, ampbox.encode, {b"": b""})
        for value in (bytes(11), [bytes(5), bytes(6)]):
            self.assertRaises(ampbox.BadBox, ampbox.encode, {b"k": value}, 10)
        self.assertRaises(ampbox.BadBox, decoded, b"\x01\x00")
