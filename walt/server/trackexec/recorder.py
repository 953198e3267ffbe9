"""Writes what is executed into the files of a record, in blocks.

The calls in the modules append to one array. A block is cut off when the event loop is about
to wait, so that it begins with an empty stack; in long turns also by the thread that writes,
which lags less than a second: what is written stays when the process is killed. Files: `about`
(JSON), `sources/<n>.gz`, `log_map/<n>` (blocks, each packed by zlib), `log_index` (one `ENTRY` a
block).
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import threading
import time
import zlib
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from walt.server.trackexec.codes import BUSY, CUT, EXACT, FILES, IDLE, moment

VERSION = 1
# Begin and end in microseconds since 1970, segment, offset and bytes in it, CRC-32, flags.
ENTRY = struct.Struct("<QQIIIII")
GOES_ON = 1  # flag: the block begins in the middle of a turn
LOST = 2  # flag: something before it could not be written

BLOCK = 16384  # codes; a turn that ends with more of them ends a block
LAG = 0.5  # seconds of a turn, after which a block ends in the middle of it
LARGEST = 4 << 20  # codes after which it ends there too
LOOK = 0.1  # seconds between two looks of the writing thread
SEGMENT = 4 << 20  # bytes of a file of blocks
PENDING = 64 << 20  # bytes that wait to be written, at most
SPACE = 1 << 30  # bytes of all records, at most


@dataclass(frozen=True)
class Block:
    """Codes between two cuts; times in microseconds since 1970."""

    codes: bytes
    begin: int
    end: int
    flags: int


def now() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000


class Recorder:
    """Takes codes by `record`, and writes them into a directory of its own.

    `on_trouble` is called, in the thread that writes, with a text when blocks are lost. Raises
    OSError when the directory cannot be made.
    """

    def __init__(
        self, directory: Path, on_trouble: Callable[[str], None], space: int = SPACE
    ) -> None:
        self._directory = directory
        self._files = 0
        self._codes = array("I")
        self._begin = now()
        self._flags = 0
        self._cut = threading.Lock()
        self._pending: deque[Block] = deque()
        self._sources: deque[tuple[int, bytes]] = deque()
        self._ended = threading.Event()
        self._writer = Writer(directory, on_trouble, space)
        self._thread = threading.Thread(target=self._write, name="trackexec", daemon=True)
        self.record: Callable[[int], None] = self._codes.append
        for name in ("sources", "log_map"):
            (directory / name).mkdir(parents=True)
        (directory / "log_index").touch()

    def start(self) -> None:
        """Write from now on; raises OSError."""
        about = {"version": VERSION, "pid": os.getpid(), "started": now()}
        (self._directory / "about").write_text(json.dumps(about))
        self._thread.start()

    def stop(self) -> None:
        """Write what there is, and end."""
        self._cut_off(0)
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def numbered(self, path: Path, source: bytes) -> int | None:
        """Keep the source of a module; return its number, None when there are no more numbers."""
        if self._files + 1 >= FILES:
            return None
        self._files += 1
        self._sources.append((self._files, f"{path}\n".encode() + source))
        return self._files

    # -- moments, in the thread of the event loop ------------------------------

    def idle(self) -> None:
        """The event loop is about to wait."""
        self._mark(IDLE)
        if len(self._codes) > BLOCK or now() - self._begin > LAG * 1e6:
            self._cut_off(0)

    def busy(self) -> None:
        """The event loop has waited."""
        self._mark(BUSY)

    def exact(self) -> None:
        """Keep the time of this instant; others are interpolated."""
        self._mark(EXACT)

    def _mark(self, what: int) -> None:
        self._codes.extend(moment(what, now()))

    def _cut_off(self, flags: int) -> None:
        """Make a block of what was recorded; `flags` is for the block that begins now."""
        with self._cut:
            # The other thread may append meanwhile: only what was copied is taken away.
            data = self._codes.tobytes()
            del self._codes[: len(data) // self._codes.itemsize]
            end = now()
            if data:
                self._pending.append(Block(data, self._begin, end, self._flags))
            self._begin, self._flags = end, flags

    # -- the thread that writes --------------------------------------------------

    def _write(self) -> None:
        while not self._ended.wait(LOOK):
            size = len(self._codes)
            if size > LARGEST or (size and now() - self._begin > LAG * 1e6):
                self._codes.extend(moment(CUT, now()))
                self._cut_off(GOES_ON)
            self._write_pending()
        self._write_pending()

    def _write_pending(self) -> None:
        while self._sources:
            self._writer.write_source(*self._sources.popleft())
        lost = 0
        while sum(len(block.codes) for block in [*self._pending]) > PENDING:
            self._pending.popleft()
            lost = LOST
        while self._pending:
            block = self._pending.popleft()
            lost = LOST if not self._writer.write(block, lost) else 0


class Writer:
    """Writes blocks into segments, and keeps the space of all records bounded."""

    def __init__(self, directory: Path, on_trouble: Callable[[str], None], space: int) -> None:
        self._directory = directory
        self._on_trouble = on_trouble
        self._space = space
        self._segment = 0
        self._offset = 0
        self._failing = False

    def write_source(self, number: int, data: bytes) -> None:
        """Write a path, an end of line and the file there."""
        path = self._directory / "sources" / f"{number}.gz"
        try:
            path.write_bytes(gzip.compress(data, 1, mtime=0))
        except OSError as error:
            self._fails(error)

    def write(self, block: Block, flags: int) -> bool:
        """Write a block; tell whether it is there."""
        data = zlib.compress(block.codes, 1)
        path = self._directory / "log_map" / str(self._segment)
        entry = ENTRY.pack(
            block.begin, block.end, self._segment, self._offset, len(data), zlib.crc32(data),
            block.flags | flags | (LOST if self._failing else 0),
        )
        try:
            # At its offset: what a full disk took in part is written over.
            with path.open("r+b" if path.exists() else "wb") as file:
                file.seek(self._offset)
                file.write(data)
                file.truncate()
            index = self._directory / "log_index"
            with index.open("r+b") as file:
                file.seek(index.stat().st_size // ENTRY.size * ENTRY.size)
                file.write(entry)
            self._offset += len(data)
            if self._offset >= SEGMENT:
                self._segment, self._offset = self._segment + 1, 0
                self._make_room()
        except OSError as error:
            self._fails(error)
            return False
        self._failing = False
        return True

    def _fails(self, error: OSError) -> None:
        """Tell it, once until something can be written again."""
        if not self._failing:
            self._failing = True
            self._on_trouble(
                f"the execution record in {self._directory} has gaps from now on:"
                f" {error.strerror}"
            )

    def _make_room(self) -> None:
        """Remove the oldest records, then the oldest segments of this one."""
        mine = self._directory.parent
        runs = sorted(
            path for path in mine.parent.iterdir() if path.is_dir() and not path.is_symlink()
        )
        left = sum(map(_size, runs)) - self._space
        for run in runs:
            if left <= 0:
                return
            if run != mine:
                left -= _size(run)
                shutil.rmtree(run, ignore_errors=True)
        segments = self._directory / "log_map"
        for segment in sorted(segments.iterdir(), key=lambda segment: int(segment.name)):
            if left <= 0:
                return
            left -= segment.stat().st_size
            segment.unlink()


def _size(directory: Path) -> int:
    """Return the bytes of the files below a directory."""
    found = 0
    for top, _, files in os.walk(directory):
        for name in files:
            with suppress(OSError):
                found += os.stat(os.path.join(top, name)).st_size
    return found
