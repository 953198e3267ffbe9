"""Blocks of archived lines between the child that reads them and the server.

    count (4, big endian), then by columns, in the order of octets of this machine:
    moment, place, arrival (8 each), number of the stream, octets of the text (4 each)
    the texts, UTF-8, one after the other
"""

from __future__ import annotations

import struct
from array import array
from typing import NamedTuple

from walt.common.records import Block
from walt.server.domain.logs.merging import Placed

_HEAD = struct.Struct(">I")
_EACH = 3 * 8 + 2 * 4  # octets of a line besides its text
Octets = bytes | memoryview


class Frame(NamedTuple):
    """The columns of some lines."""

    moments: Octets
    places: Octets
    arrivals: Octets
    streams: Octets
    sizes: Octets
    text: Octets

    def parts(self) -> list[Octets]:
        """Return what is written."""
        return [_HEAD.pack(memoryview(self.moments).nbytes // 8), *self]


EMPTY = Frame(b"", b"", b"", b"", b"", b"")


def placed(data: bytes) -> Placed:
    """Return the lines of a frame; their sources are numbers of streams, as texts.

    Raises ValueError, struct.error for what no reader can have written.
    """
    (count,) = _HEAD.unpack_from(data)
    start = _HEAD.size
    view = memoryview(data)
    if len(data) < start + count * _EACH:
        raise ValueError("the block is cut")

    def column(kind: str, width: int) -> array[int]:
        nonlocal start
        found = array(kind)
        found.frombytes(view[start:start + width * count])
        start += width * count
        return found

    moments, places, arrivals = column("q", 8), column("q", 8), column("q", 8)
    streams, sizes = column("i", 4), column("i", 4)
    text = data[start:]
    if (count and min(sizes) < 0) or sum(sizes) != len(text):
        raise ValueError("numbers do not fit")
    text.decode()
    used = list(dict.fromkeys(streams))
    positions = {number: position for position, number in enumerate(used)}
    which = array("i", map(positions.__getitem__, streams))
    return Placed(
        Block([("", str(number)) for number in used], moments, which, sizes, text),
        places, arrivals,
    )
