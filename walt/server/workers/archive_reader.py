"""The child that reads archived lines for one reader, file by file, block by block.

Its input has lines: first a JSON object with `target`, `files` (names and sizes) and what is
wanted (`walt.server.domain.logs.archive.Reading`), then questions, `next N` or `count N`, N
being the position of a file. Its output has one answer each, in the order of the questions:
octets of what follows (4, big endian) | kind (1) | …

    B: a block as `walt.server.adapters.archive.frames` writes it, without lines at the end
    C: a number of lines, in decimal
    E: what is wrong, a sentence
"""

from __future__ import annotations

import json
import signal
import struct
import sys
from typing import BinaryIO

from walt.common.errors import WaltError
from walt.server.adapters.archive.reading import Missing, Reader

_SIZE = struct.Struct(">I")


def serve(source: BinaryIO, wire: BinaryIO) -> None:
    """Answer questions until the end of input."""

    def answer(kind: bytes, *parts: bytes | memoryview) -> None:
        wire.write(_SIZE.pack(len(kind) + sum(memoryview(part).nbytes for part in parts)))
        wire.write(kind)
        for part in parts:
            wire.write(part)
        wire.flush()

    reader: Reader | None = None
    wanted = json.loads(source.readline())
    while question := source.readline():
        kind, _, number = question.decode().partition(" ")
        try:
            if reader is None:
                reader = Reader(wanted)
            if kind == "next":
                answer(b"B", *reader.following(int(number)).parts())
            else:
                answer(b"C", str(reader.count(int(number))).encode())
        except (Missing, WaltError) as error:
            answer(b"E", str(error).encode(errors="replace"))


def main() -> None:
    """Serve on standard input and output."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
