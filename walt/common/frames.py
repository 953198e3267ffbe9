"""Frames of client streams (design §8): kind (1 byte), length (4 bytes), payload."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator


DATA = b"D"      # bytes of the session, both ways
END = b"E"       # end of input (half-close)
WINDOW = b"W"    # JSON {"rows", "columns"}
MESSAGE = b"M"   # text for the standard error of the client
RESULT = b"R"    # JSON, with the exit status; last frame of the server

KINDS = frozenset((DATA, END, WINDOW, MESSAGE, RESULT))
MAX_PAYLOAD = 1 << 20
MAX_PARAMETERS = 64 * 1024


class BadFrame(ValueError):
    """Bytes that are not a frame."""


def encode(kind: bytes, payload: bytes = b"") -> bytes:
    """Return the bytes of the frames that carry `payload`, split if it is long."""
    if len(payload) <= MAX_PAYLOAD:
        return kind + len(payload).to_bytes(4, "big") + payload
    pieces = (payload[at:at + MAX_PAYLOAD] for at in range(0, len(payload), MAX_PAYLOAD))
    return b"".join(encode(kind, piece) for piece in pieces)


class Decoder:
    """Turn a stream of bytes into frames, whatever the segments."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Add received bytes and yield (kind, payload) of every complete frame."""
        self._data += data
        at = 0
        while len(self._data) - at >= 5:
            kind = bytes(self._data[at:at + 1])
            size = int.from_bytes(self._data[at + 1:at + 5], "big")
            if kind not in KINDS:
                raise BadFrame("unknown kind of frame %r" % kind)
            if size > MAX_PAYLOAD:
                raise BadFrame("frame of %d bytes" % size)
            if len(self._data) - at < 5 + size:
                break
            yield kind, bytes(self._data[at + 5:at + 5 + size])
            at += 5 + size
        del self._data[:at]
