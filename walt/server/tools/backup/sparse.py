"""Files with holes, as one stream: where their data are, then the data.

A line of JSON, {"size": bytes, "extents": [[offset, length], …]}, and the bytes of each extent.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import IO

from walt.common.errors import Invalid

LARGEST = 16 << 40  # bytes: that of ext4
MOST_EXTENTS = 1_000_000
LONGEST_LINE = 64 << 20  # bytes
PIECE = 1 << 20


def extents(descriptor: int, size: int) -> list[tuple[int, int]]:
    """Return where the data of an open file are (lseek(2), SEEK_DATA)."""
    found = []
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # nothing but a hole
            raise
        at = min(size, os.lseek(descriptor, start, os.SEEK_HOLE))
        if at > start:
            found.append((start, at - start))
    return found


def pack(source: Path, target: IO[bytes]) -> None:
    """Write a file with holes to a stream. Raises OSError."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        parts = extents(descriptor, size)
        target.write(json.dumps({"size": size, "extents": parts}).encode() + b"\n")
        for start, length in parts:
            while length:
                data = os.pread(descriptor, min(PIECE, length), start)
                if not data:
                    raise OSError(f"{source} became shorter while it was read")
                target.write(data)
                start, length = start + len(data), length - len(data)
    finally:
        os.close(descriptor)


def head(line: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Return the size and the extents that the first line tells. Raises Invalid."""
    try:
        found = json.loads(line)
        size, parts = found["size"], [(start, length) for start, length in found["extents"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Invalid("a file with holes makes no sense") from None
    at = 0
    for start, length in parts:
        if type(start) is not int or type(length) is not int or start < at or length <= 0:
            raise Invalid("a file with holes has parts that overlap")
        at = start + length
    if type(size) is not int or not at <= size <= LARGEST or len(parts) > MOST_EXTENTS:
        raise Invalid("a file with holes is too large, or shorter than its parts")
    return size, parts


def unpack(source: IO[bytes], target: Path) -> None:
    """Make the file that a stream tells, which was not there before. Raises Invalid, OSError."""
    size, parts = head(source.readline(LONGEST_LINE))
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as stream:
        stream.truncate(size)
        for start, length in parts:
            stream.seek(start)
            while length:
                data = source.read(min(PIECE, length))
                if not data:
                    raise Invalid("a file with holes lacks its end")
                stream.write(data)
                length -= len(data)
        if source.read(1):
            raise Invalid("a file with holes has too much")
        stream.flush()
        os.fsync(stream.fileno())
