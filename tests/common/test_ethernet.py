"""Frames of the VPN in a stream of bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.ethernet import MAX_FRAME, MIN_FRAME, BadFrame, FrameDecoder, encode

FRAME = st.integers(MIN_FRAME, MAX_FRAME).flatmap(
    lambda size: st.binary(min_size=1, max_size=4).map(lambda one: (one * size)[:size])
)


class EthernetTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        """A length of two bytes, big endian, and the frame."""
        self.assertEqual(encode(b"x" * 258), b"\x01\x02" + b"x" * 258)

    def test_cut_at_each_byte(self) -> None:
        """Wherever a stream is cut, the frames are the same."""
        frames = [b"a" * MIN_FRAME, b"b" * 60, b"c" * 300]
        stream = b"".join(map(encode, frames))
        for cut in range(len(stream) + 1):
            decoder = FrameDecoder()
            self.assertEqual(decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]), frames)
            self.assertEqual(len(decoder), 0)
        decoder = FrameDecoder()
        self.assertEqual(
            [one for byte in stream for one in decoder.feed(bytes([byte]))], frames
        )

    @given(st.lists(FRAME, max_size=8), st.lists(st.integers(1, 3000), max_size=20))
    def test_any_pieces(self, frames: list[bytes], sizes: list[int]) -> None:
        """Frames of any size in pieces of any size; less than one frame is kept."""
        stream, decoder, found = b"".join(map(encode, frames)), FrameDecoder(), []
        for size in [*sizes, len(stream)]:
            piece, stream = stream[:size], stream[size:]
            found += decoder.feed(piece)
            self.assertTrue(len(decoder) < MAX_FRAME + 2)
        self.assertEqual((found, len(decoder)), (frames, 0))

    @given(st.binary(max_size=4000))
    def test_any_bytes(self, data: bytes) -> None:
        """What is no stream of frames is a BadFrame, or waits for its rest."""
        decoder = FrameDecoder()
        try:
            found = decoder.feed(data)
        except BadFrame:
            return
        self.assertTrue(all(MIN_FRAME <= len(one) <= MAX_FRAME for one in found))
        self.assertTrue(len(decoder) < MAX_FRAME + 2)
        self.assertTrue(data.startswith(b"".join(map(encode, found))))

    def test_limits(self) -> None:
        """Neither shorter than a header nor longer than a frame, in both directions."""
        for size in (0, MIN_FRAME - 1, MAX_FRAME + 1, 65535):
            with self.assertRaises(BadFrame):
                FrameDecoder().feed(size.to_bytes(2, "big"))
            with self.assertRaises(BadFrame):
                encode(b"x" * size)
        for size in (MIN_FRAME, MAX_FRAME):
            self.assertEqual(FrameDecoder().feed(encode(b"x" * size)), [b"x" * size])
