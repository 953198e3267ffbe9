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


Box = dict  # of bytes to bytes; a long value that is sent may be a list of them

MAX_KEY = 0xFF
MAX_VALUE = 0xFFFF
MAX_WHOLE_VALUE = 64 * 1024 * 1024


class BadBox(ValueError):
    """Bytes that are not an AMP box, or a value above the limit."""


def split_value(
    name: bytes, value: bytes | list[bytes], limit: int = MAX_WHOLE_VALUE
) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """Yield the pairs that carry `value`, of up to `limit` bytes, under `name`."""
    parts = value if isinstance(value, list) else [value]
    size = sum(map(len, parts))
    if size > limit:
        raise BadBox("value of %d bytes is above the limit of %d" % (size, limit))
    if size == 0:
        yield name, b""
    number = 0
    for part in parts:
        whole = part if len(part) <= MAX_VALUE else memoryview(part)
        for start in range(0, len(part), MAX_VALUE):
            yield b"%s+%d" % (name, number) if number else name, whole[start:start + MAX_VALUE]
            number += 1


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


def encode(box: Box, limit: int = MAX_WHOLE_VALUE) -> bytes:
    """Return the bytes of one box; long values, of up to `limit` bytes, are split."""
    return b"".join(parts(box, limit))


def parts(box: Box, limit: int = MAX_WHOLE_VALUE) -> list[bytes | memoryview]:
    """Return what `encode` joins."""
    out: list[bytes | memoryview] = []
    for name, whole in box.items():
        for key, value in split_value(name, whole, limit):
            if not 0 < len(key) <= MAX_KEY:
                raise BadBox("key of %d bytes" % len(key))
            out += (len(key).to_bytes(2, "big"), key, len(value).to_bytes(2, "big"), value)
    out.append(b"\0\0")
    return out


class Decoder:
    """Turn a stream of bytes into boxes, whatever the segments.

    `limit` bounds the bytes of one box, joined values included.
    """

    def __init__(self, limit: int = MAX_WHOLE_VALUE + MAX_VALUE) -> None:
        self.limit = limit
        self._rest = bytearray()
        self._needed = 0
        self._box: Box = {}
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Box]:
        """Add received bytes and yield every complete box. Raises BadBox."""
        if self._rest:
            self._rest += data
            # Without this, a value that comes byte by byte would be copied for each of them.
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, end = 0, len(data)
        while True:
            value_at = at + 2
            self._needed = 2
            if end < value_at:
                break
            size = data[at] << 8 | data[at + 1]
            if size == 0:
                at = value_at
                box, self._box, self._size = self._box, {}, 0
                yield box
                continue
            if size > MAX_KEY:
                raise BadBox("key of %d bytes" % size)
            value_at += size + 2
            self._needed = value_at - at
            if end < value_at:
                break
            stop = value_at + (data[value_at - 2] << 8 | data[value_at - 1])
            self._needed = stop - at
            if self._size + self._needed > self.limit:
                raise BadBox("box above the limit of %d bytes" % self.limit)
            if end < stop:
                break
            self._box[data[at + 2:value_at - 2]] = data[value_at:stop]
            self._size += stop - at
            at = stop
        self._rest += data[at:]
