"""Boot files of boards, from an archive of somebody else: `tftp-static` (spec server §1.3).

Boards that nobody knows yet, and all boards after an orderly stop, get these files: for a
Raspberry Pi its firmware, and a U-Boot that asks again. They are not ours to ship.
"""

from __future__ import annotations

import hashlib
import lzma
import math
import os
import resource
import shutil
import tarfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from walt.common.errors import Invalid, Unavailable, in_words
from walt.server.tools.setup.machine import Machine

DIGEST = "#sha256="
STATIC, MARKER = "tftp-static", "walt.date"
# What tells the directory of an archive that a board reads: its first stages, a U-Boot.
FIRST_STAGES = ("bootcode.bin", "start4.elf", "start.elf", "u-boot.bin", "config.txt")
MAX_ARCHIVE = 2 << 30  # bytes, to fetch
MAX_MEMORY = 256 << 20  # bytes that reading an archive may take
MAX_SIZE, MAX_FILES = 1 << 30, 20_000  # unpacked
TOO_LARGE = f"the archive is too large: {MAX_FILES} files and {MAX_SIZE >> 30} GiB at most"
PATIENCE, LONGEST = 60.0, 3600.0  # seconds without any byte; in all
_PIECE = 1 << 20
UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError,
    RuntimeError, ArithmeticError,
)


@dataclass(frozen=True)
class Member:
    """A file of an archive; `open` returns its content."""

    name: PurePosixPath
    size: int
    changed: float
    open: Callable[[], IO[bytes]]


@contextmanager
def obtained(
    source: str, proxies: dict[str, str] | None = None, *, most: int = MAX_ARCHIVE
) -> Iterator[Path]:
    """Give an archive as a file: it is one, or is fetched by HTTP.

    `#sha256=DIGEST` behind an address is what it must have; without encryption it must be told.
    `most` bytes are fetched. Raises Unavailable, Invalid.
    """
    if not source.startswith(("http://", "https://")):
        yield Path(source)
        return
    source, _, digest = source.partition(DIGEST)
    if not digest and not source.startswith("https://"):
        raise Invalid(
            f"{source} is not encrypted: anybody on the way may change it. Use https, or write"
            f" {DIGEST}DIGEST behind it"
        )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    end = time.monotonic() + LONGEST
    with TemporaryDirectory(prefix="walt-firmware-") as directory:
        place = Path(directory) / "archive"
        try:
            with opener.open(source, timeout=PATIENCE) as answer, open(place, "wb") as target:
                taken, known = 0, hashlib.sha256()
                while piece := answer.read1(_PIECE):
                    taken += len(piece)
                    known.update(piece)
                    if taken > most or time.monotonic() > end:
                        raise Invalid(f"{source} is too large, or comes too slowly")
                    target.write(piece)
        except OSError as error:  # what urllib raises is one
            reason = getattr(error, "reason", None)
            cause = reason if isinstance(reason, BaseException) else error
            raise Unavailable(f"{source} cannot be fetched: {in_words(cause)}") from None
        if digest and known.hexdigest() != digest.lower():
            raise Invalid(f"{source} has the digest {known.hexdigest()}, not {digest}")
        yield place


@contextmanager
def members(archive: Path) -> Iterator[list[Member]]:
    """Give the files of a tar (of any compression) or zip archive. Raises Invalid, OSError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = _memory() + MAX_MEMORY
    if before[0] == resource.RLIM_INFINITY or before[0] > most:
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield [
                    Member(
                        PurePosixPath(info.filename), info.file_size,
                        time.mktime((*info.date_time, 0, 0, -1)), partial(zipped.open, info),
                    )
                    for info in zipped.infolist() if not info.is_dir()
                ]
        else:
            with tarfile.open(archive) as tar:
                yield [*_of_tar(tar)]
    except UNREADABLE as error:
        raise Invalid(f"{archive} is no archive that can be read: {in_words(error)}") from None
    except MemoryError:
        raise Invalid(f"{archive} takes too much memory to read") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _memory() -> int:
    """Return the size of the address space of this process (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _of_tar(tar: tarfile.TarFile) -> Iterator[Member]:
    size = 0
    for number, info in enumerate(tar):
        size += info.size
        if number >= MAX_FILES or size > MAX_SIZE:  # before more is unpacked to find the next one
            raise Invalid(TOO_LARGE)
        if info.isdir():
            continue
        if not info.isreg():
            raise Invalid(f"the archive has {info.name!r}, which is neither a file nor a directory")

        def content(info: tarfile.TarInfo = info) -> IO[bytes]:
            found = tar.extractfile(info)
            assert found is not None  # a regular file has content
            return found

        yield Member(PurePosixPath(info.name), info.size, info.mtime, content)


def chosen(found: list[Member]) -> dict[PurePosixPath, Member]:
    """Return the files that boards read, by their paths below `tftp-static`.

    They are those beside and below the first stage that is nearest to the top. Raises Invalid
    for an archive that has none, or names that lead elsewhere, or too much.
    """
    if len(found) > MAX_FILES or sum(member.size for member in found) > MAX_SIZE:
        raise Invalid(TOO_LARGE)
    for member in found:
        if member.name.is_absolute() or ".." in member.name.parts or "\0" in str(member.name):
            raise Invalid(f"the archive has a name that leads elsewhere: {str(member.name)!r}")
    tops = sorted(
        (len(member.name.parts), member.name.parent)
        for member in found if member.name.name in FIRST_STAGES
    )
    if not tops:
        raise Invalid(
            "the archive has no boot files of a board: none of " + ", ".join(FIRST_STAGES)
        )
    top = tops[0][1]
    files = {
        member.name.relative_to(top): member for member in found
        if member.name.is_relative_to(top) and member.name.name != MARKER
    }
    both = files.keys() & {above for name in files for above in name.parents}
    if both:
        raise Invalid(f"the archive has {str(min(both))!r} as a file and as a directory")
    if not all(math.isfinite(member.changed) for member in files.values()):
        raise Invalid("the archive has a file without a date")
    return files


@dataclass(frozen=True)
class FirmwareStep:
    """The files of an archive are in `tftp-static`, beside what else is there."""

    machine: Machine
    state: Path
    archive: Path
    title: str = "boot files of boards"

    @property
    def _place(self) -> Path:
        return self.machine.at(self.state / STATIC)

    def lacks(self) -> list[str]:
        """See Step. Files are compared, whatever was done before: one may have gone since."""
        with members(self.archive) as found:
            lacking = sum(
                not self._is_there(self._place / name, member)
                for name, member in chosen(found).items()
            )
        return [f"{STATIC} lacks {lacking} files of {self.archive.name}"] if lacking else []

    def _is_there(self, place: Path, member: Member) -> bool:
        try:
            if place.stat().st_size != member.size:
                return False
            with place.open("rb") as here, member.open() as there:
                while piece := there.read(_PIECE):
                    if here.read(len(piece)) != piece:
                        return False
        except OSError:
            return False
        return True

    def apply(self) -> None:
        """See Step. A call that was cut is done again."""
        with members(self.archive) as found:
            files = chosen(found)
            for name, member in files.items():
                self._write(self._place / name, member)
            newest = int(max(member.changed for member in files.values()))
        self.machine.write(self.state / STATIC / MARKER, f"{newest}\n")

    def _write(self, target: Path, member: Member) -> None:
        for above in reversed(target.relative_to(self._place).parents):
            directory = self._place / above
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            if directory.is_symlink():
                raise Invalid(f"{directory} is a link; nothing is written behind it")
        beside = target.with_name(f".{target.name}.new")
        beside.unlink(missing_ok=True)
        try:
            with member.open() as content, open(beside, "xb") as stream:
                shutil.copyfileobj(content, stream, _PIECE)
                stream.flush()
                os.fsync(stream.fileno())
            beside.chmod(0o644)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)  # a full disk, a damaged archive

    def undo(self) -> None:
        """They stay: boards may wait for them."""
