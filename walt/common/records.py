"""Log records on their way to clients: blocks of many records, a column for each fact.

On the wire, numbers big endian:

    octets of what follows (4) | count (4) | octets of the sources (4)
    sources: JSON, the distinct [issuer, stream] pairs
    count times the moment: epoch microseconds (8)
    count times the source: position of its [issuer, stream] (4)
    count times the octets of its text (4)
    the texts, UTF-8, one after the other

PostgreSQL makes the columns of stored lines, and scripts give them to pyarrow as they are:
nothing is done line by line in between.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from itertools import accumulate, repeat

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Record = tuple[float, str, str, str]  # epoch seconds, issuer, stream, line
    Source = tuple[str, str]  # issuer, stream

MICROSECONDS = 1_000_000  # of a second
_SIZE = struct.Struct(">I")
_HEAD = struct.Struct(">II")
_EACH = 8 + 4 + 4  # octets of a record besides its text
MAX_BLOCK = 1 << 28  # octets; no server sends that many at once
_SWAPPED = sys.byteorder == "little"

if array("i").itemsize != 4:
    raise ImportError("integers of this machine do not have four octets")


def numbers(kind: str, data: bytes | memoryview) -> array[int]:
    """Return the numbers of a column, "q" (8 octets) or "i" (4), from the wire."""
    found = array(kind)
    found.frombytes(data)
    if _SWAPPED:
        found.byteswap()
    return found


def _octets(column: array[int]) -> bytes:
    if _SWAPPED:
        column = column[:]
        column.byteswap()
    return column.tobytes()


class Block:
    """Records, by columns.

    `moments` are epoch microseconds, `which` positions in `sources`, `sizes` the octets of
    each text; `text` is all texts, UTF-8, one after the other.
    """

    __slots__ = ("moments", "sizes", "sources", "text", "which")

    def __init__(
        self, sources: Sequence[Source], moments: array[int], which: array[int],
        sizes: array[int], text: bytes,
    ) -> None:
        self.sources = sources
        self.moments = moments
        self.which = which
        self.sizes = sizes
        self.text = text

    def __len__(self) -> int:
        return len(self.moments)

    def texts(self) -> list[str]:
        """Return the text of each record. Raises ValueError for what is no UTF-8."""
        ends = list(accumulate(self.sizes))
        if self.text.isascii():
            text = self.text.decode("ascii")
            return [text[start:end] for start, end in zip([0, *ends], ends)]
        return [self.text[start:end].decode() for start, end in zip([0, *ends], ends)]

    def records(self) -> list[Record]:
        """Return the records, one by one. Raises ValueError for what is no UTF-8."""
        stamps = [moment / MICROSECONDS for moment in self.moments]
        if len(self.sources) == 1:
            issuer, stream = self.sources[0]
            return list(zip(stamps, repeat(issuer), repeat(stream), self.texts()))
        sources = [self.sources[position] for position in self.which]
        return [
            (stamp, issuer, stream, text)
            for stamp, (issuer, stream), text in zip(stamps, sources, self.texts())
        ]


def block_of(records: Sequence[Record]) -> Block:
    """Return records as a block; their moments are rounded to microseconds."""
    positions: dict[Source, int] = {}
    moments, which, texts = array("q"), array("i"), []
    for stamp, issuer, stream, line in records:
        moments.append(round(stamp * MICROSECONDS))
        which.append(positions.setdefault((issuer, stream), len(positions)))
        texts.append(line.encode())
    return Block(
        list(positions), moments, which, array("i", map(len, texts)), b"".join(texts)
    )


def encode(block: Block, names: Mapping[str, str]) -> bytes:
    """Return a block as it is sent; its issuers are keys of `names`."""
    sources = json.dumps([(names[issuer], stream) for issuer, stream in block.sources]).encode()
    parts = (
        _HEAD.pack(len(block), len(sources)), sources, _octets(block.moments),
        _octets(block.which), _octets(block.sizes), block.text,
    )
    return b"".join((_SIZE.pack(sum(map(len, parts))), *parts))


class Blocks:
    """Takes the blocks out of what arrives."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the blocks that are complete now, without the octets that tell their size.

        Raises ValueError for a block of more than MAX_BLOCK octets.
        """
        self._pending += data
        found, start = [], 0
        while len(self._pending) >= start + _SIZE.size:
            size = _SIZE.unpack_from(self._pending, start)[0]
            if size > MAX_BLOCK:
                raise ValueError("the block is too large")
            end = start + _SIZE.size + size
            if end > len(self._pending):
                break
            found.append(bytes(self._pending[start + _SIZE.size:end]))
            start = end
        del self._pending[:start]
        return found


def decode(data: bytes) -> Block:
    """Return what one block holds.

    Raises ValueError, TypeError, LookupError or struct.error for what `encode` cannot have
    written.
    """
    count, size = _HEAD.unpack_from(data)
    start = _HEAD.size + size
    if len(data) < start + count * _EACH:
        raise ValueError("the block is cut")
    sources = [
        ("".join([issuer]), "".join([stream]))
        for issuer, stream in json.loads(data[_HEAD.size:start])
    ]
    view = memoryview(data)
    moments = numbers("q", view[start:start + 8 * count])
    start += 8 * count
    which = numbers("i", view[start:start + 4 * count])
    sizes = numbers("i", view[start + 4 * count:start + 8 * count])
    text = data[start + 8 * count:]
    if (count and (
        min(which) < 0 or max(which) >= len(sources) or min(sizes) < 0
    )) or sum(sizes) != len(text):
        raise ValueError("numbers do not fit")
    text.decode()
    return Block(sources, moments, which, sizes, text)
