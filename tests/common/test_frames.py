"""The codec of client streams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common import frames

KINDS = st.sampled_from(sorted(frames.KINDS))
FRAMES = st.lists(st.tuples(KINDS, st.binary(max_size=200)), max_size=6)


def decoded(data: bytes, size: int = 1 << 20) -> list[tuple[bytes, bytes]]:
    decoder = frames.Decoder()
    return [
        frame for at in range(0, len(data), size) for frame in decoder.feed(data[at:at + size])
    ]


class FrameTests(SynchronousTestCase):
    @given(FRAMES, st.integers(1, 40))
    def test_any_segments(self, sent: list[tuple[bytes, bytes]], size: int) -> None:
        """What was encoded is decoded, whatever the segments."""
        data = b"".join(frames.encode(kind, payload) for kind, payload in sent)
        self.assertEqual(decoded(data, size), sent)

    @given(st.binary(max_size=100))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes give frames or BadFrame, nothing else."""
        try:
            decoded(data)
        except frames.BadFrame:
            pass

    def test_long_payload_is_split(self) -> None:
        """A payload above the limit travels in several frames of its kind."""
        payload = bytes(2 * frames.MAX_PAYLOAD + 5)
        received = decoded(frames.encode(frames.DATA, payload))
        self.assertEqual([len(part) for _, part in received], [1 << 20, 1 << 20, 5])
        self.assertEqual(b"".join(part for _, part in received), payload)

    def test_refused(self) -> None:
        """An unknown kind and a size above the limit are refused at the header."""
        self.assertRaises(frames.BadFrame, decoded, b"X\0\0\0\0")
        self.assertRaises(frames.BadFrame, decoded, b"D\x7f\0\0\0")
