"""The logo of the web pages, as PNG (W3C PNG 3rd edition)."""

from __future__ import annotations

import struct
import zlib

SCALE = 4
# A switch above, nodes below, links between.
_DRAWING = (
    "................",
    ".##############.",
    ".#o#o#o#o#o#o##.",
    ".##############.",
    "...#...##...#...",
    "...#...##...#...",
    "...#...##...#...",
    "...#...##...#...",
    "...#...##...#...",
    ".oooo.oooo.oooo.",
    ".oooo.oooo.oooo.",
    ".oooo.oooo.oooo.",
    "................",
)
_COLOURS = {"#": b"\x00\x87\xd7\xff", "o": b"\xff\x87\x00\xff", ".": b"\x00\x00\x00\x00"}


def logo() -> bytes:
    """Return the file: 8 bits a channel, with transparency."""
    width, height = SCALE * len(_DRAWING[0]), SCALE * len(_DRAWING)
    rows = b"".join(
        SCALE * (b"\x00" + b"".join(SCALE * _COLOURS[dot] for dot in row)) for row in _DRAWING
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, data)
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
