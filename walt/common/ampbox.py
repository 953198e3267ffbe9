"""AMP framing with the standard library alone.

A box is a sequence of (key, value) pairs, each prefixed by its length on two
bytes, ended by an empty key. Keys hold at most 255 bytes, values 65,535. A
longer value travels as pieces: the first under the plain key, the next ones
under ``key+1``, ``key+2``… (design D5).
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator


Box = dict  # of bytes to bytes

MAX_KEY = 0xFF
MAX_VALUE = 0xFFFF
MAX_WHOLE_VALUE = 64 * 1024 * 1024


class BadBox(ValueError):
    """Bytes that are not an AMP box, or a value above the limit."""


def split_value(name: bytes, value: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs that carry `value`, however long it is, under `name`."""
    if len(value) > MAX_WHOLE_VALUE:
        raise BadBox("value of %d bytes is above the limit of %d" % (len(value), MAX_WHOLE_VALUE))
    yield name, value[:MAX_VALUE]
    for number, start in enumerate(range(MAX_VALUE, len(value), MAX_VALUE), 1):
        yield b"%s+%d" % (name, number), value[start:start + MAX_VALUE]


def join_value(name: bytes, box: Box) -> bytes | None:
    """Take the pieces of `name` out of `box` and return the whole, None if absent."""
    if name not in box:
        return None
    pieces = [box.pop(name)]
    number = 1
    while True:
        piece = box.pop(b"%s+%d" % (name, number), None)
        if not piece:
            break
        pieces.append(piece)
        number += 1
    return b"".join(pieces)


def encode(box: Box) -> bytes:
    """Return the bytes of one box; long values are split."""
    out = []
    for name, whole in box.items():
        for key, value in split_value(name, whole):
            if not 0 < len(key) <= MAX_KEY:
                raise BadBox("key of %d bytes" % len(key))
            out.append(len(key).to_bytes(2, "big") + key)
            out.append(len(value).to_bytes(2, "big") + value)
    out.append(b"\0\0")
    return b"".join(out)


class Decoder:
    """Turn a stream of bytes into boxes, whatever the segments."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0
        self._box: Box = {}
        self._key: bytes | None = None

    def feed(self, data: bytes) -> Iterator[Box]:
        """Add received bytes and yield every complete box."""
        self._data += data
        while len(self._data) - self._at >= 2:
            size = int.from_bytes(self._data[self._at:self._at + 2], "big")
            if self._key is None and size > MAX_KEY:
                raise BadBox("key of %d bytes" % size)
            if self._key is None and size == 0:
                self._at += 2
                box, self._box = self._box, {}
                yield box
                continue
            if len(self._data) - self._at < 2 + size:
                break
            text = bytes(self._data[self._at + 2:self._at + 2 + size])
            self._at += 2 + size
            if self._key is None:
                self._key = text
            else:
                self._box[self._key] = text
                self._key = None
        del self._data[:self._at]
        self._at = 0
