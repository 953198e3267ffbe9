"""Reads a record, also while it is being written; what is damaged is left out."""

from __future__ import annotations

import gzip
import json
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from walt.server.trackexec.codes import FILES
from walt.server.trackexec.recorder import ENTRY, GOES_ON, LOST, PENDING, VERSION
from walt.server.trackexec.sources import Source

UNPACKED = PENDING  # bytes of a block, at most
LARGEST_SOURCE = 8 << 20
KEPT = 4  # segments that are kept in memory


class RecordError(Exception):
    """A directory that holds no record which can be read."""


@dataclass(frozen=True)
class Entry:
    """A block of the index; times in microseconds since 1970."""

    number: int
    begin: int
    end: int
    segment: int
    offset: int
    size: int
    crc: int
    flags: int

    @property
    def goes_on(self) -> bool:
        """Whether it begins in the middle of a turn."""
        return bool(self.flags & GOES_ON)

    @property
    def after_gap(self) -> bool:
        """Whether something before it was lost."""
        return bool(self.flags & LOST)


class Record:
    """The record of one process."""

    def __init__(self, directory: Path) -> None:
        """Open it; raises RecordError with what is wrong."""
        self.directory = directory
        try:
            about = json.loads((directory / "about").read_text())
            version, self.pid = int(about["version"]), int(about["pid"])
            self._index = (directory / "log_index").open("rb")
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "damaged"
            raise RecordError(
                f"{directory} is no execution record ({reason}); give the directory of a process,"
                " which holds `about` and `log_index`, as /var/log/walt/trackexec/latest/server"
            ) from None
        if version != VERSION:
            raise RecordError(
                f"{directory} was written by another version of WalT (format {version}, this one"
                f" reads {VERSION}): read it with the tools of that version"
            )
        self.entries: list[Entry] = []
        self._sources: dict[int, Source] = {}
        self._segments: dict[int, bytes] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Look for blocks that were written since; tell whether there are."""
        data = self._index.read()
        whole = len(data) // ENTRY.size * ENTRY.size
        if whole < len(data):
            self._index.seek(whole - len(data), 1)
        for fields in ENTRY.iter_unpack(data[:whole]):
            self.entries.append(Entry(len(self.entries), *fields))
        return whole > 0

    def close(self) -> None:
        """Close its files."""
        self._index.close()

    def codes(self, entry: Entry) -> array[int] | None:
        """Return the codes of a block, or None when they are damaged or no longer there."""
        data = self._segment(entry.segment, entry.offset + entry.size)
        data = data[entry.offset : entry.offset + entry.size]
        if len(data) != entry.size or zlib.crc32(data) != entry.crc:
            return None
        codes = array("I")
        try:
            unpacked = zlib.decompressobj().decompress(data, UNPACKED)
            codes.frombytes(unpacked)
        except (zlib.error, ValueError):
            return None
        return codes

    def _segment(self, number: int, needed: int) -> bytes:
        data = self._segments.get(number, b"")
        if len(data) < needed:  # not read yet, or it has grown
            data = self._read(number)
            if len(self._segments) >= KEPT:
                self._segments.clear()
            self._segments[number] = data
        return data

    def _read(self, number: int) -> bytes:
        try:
            return (self.directory / "log_map" / str(number)).read_bytes()
        except OSError:
            return b""

    def source(self, number: int) -> Source:
        """Return a file as it was recorded; one that is gone has no lines."""
        found = self._sources.get(number)
        if found is None:
            path, text = f"file {number}", ""
            try:
                with gzip.open(self.directory / "sources" / f"{number}.gz") as file:
                    data = file.read(LARGEST_SOURCE).decode(errors="replace")
                path, _, text = data.partition("\n")
            except (OSError, EOFError, zlib.error):
                pass
            found = self._sources[number] = Source(number, path, text)
        return found

    def sources(self) -> Iterator[Source]:
        """Return all files, by number."""
        names = (path.name.removesuffix(".gz") for path in (self.directory / "sources").iterdir())
        for number in sorted(int(name) for name in names if name.isdecimal()):
            if number < FILES:
                yield self.source(number)

    def at(self, microseconds: int) -> int:
        """Return the number of the last block that begins at or before a time; 0 if none does."""
        begins = [entry.begin for entry in self.entries]
        return max(0, bisect_right(begins, microseconds) - 1)
