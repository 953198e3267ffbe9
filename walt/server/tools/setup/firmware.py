"""Boot files of boards, from an archive of somebody else: `tftp-static` (spec server §1.3).

Boards that nobody knows yet, and all boards after an orderly stop, get these files: for a
Raspberry Pi its firmware, and a U-Boot that asks again. They are not ours to ship.
"""

from __future__ import annotations

import hashlib
import lzma
import os
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

STATIC, MARKER = "tftp-static", "walt.date"
# What tells the directory of an archive that a board reads: its first stages, a U-Boot.
FIRST_STAGES = ("bootcode.bin", "start4.elf", "start.elf", "u-boot.bin", "config.txt")
MAX_ARCHIVE = 2 << 30  # bytes, to fetch
MAX_SIZE, MAX_FILES = 1 << 30, 20_000  # unpacked
TOO_LARGE = f"the archive is too large: {MAX_FILES} files and {MAX_SIZE >> 30} GiB at most"
PATIENCE, LONGEST = 60.0, 3600.0  # seconds without any byte; in all
_PIECE = 1 << 20
UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError,
    RuntimeError,
)


@dataclass(frozen=True)
class Member:
    """A file of an archive; `open` returns its content."""

    name: PurePosixPath
    size: int
    changed: float
    open: Callable[[], IO[bytes]]


@contextmanager
def obtained(source: str, proxies: dict[str, str] | None = None) -> Iterator[Path]:
    """Give an archive as a file: it is one, or is fetched by HTTP. Raises Unavailable, Invalid."""
    if not source.startswith(("http://", "https://")):
        yield Path(source)
        return
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    end = time.monotonic() + LONGEST
    with TemporaryDirectory(prefix="walt-firmware-") as directory:
        place = Path(directory) / "archive"
        try:
            with opener.open(source, timeout=PATIENCE) as answer, open(place, "wb") as target:
                taken = 0
                while piece := answer.read(_PIECE):
                    taken += len(piece)
                    if taken > MAX_ARCHIVE or time.monotonic() > end:
                        raise Invalid(f"{source} is too large, or comes too slowly")
                    target.write(piece)
        except OSError as error:  # what urllib raises is one
            reason = getattr(error, "reason", None)
            cause = reason if isinstance(reason, BaseException) else error
            raise Unavailable(f"{source} cannot be fetched: {in_words(cause)}") from None
        yield place


@contextmanager
def members(archive: Path) -> Iterator[list[Member]]:
    """Give the files of a tar (of any compression) or zip archive. Raises Invalid, OSError."""
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
    if len(found) > MAX_FILES or sum(one.size for one in found) > MAX_SIZE:
        raise Invalid(TOO_LARGE)
    for one in found:
        if one.name.is_absolute() or ".." in one.name.parts or "\0" in str(one.name):
            raise Invalid(f"the archive has a name that leads elsewhere: {str(one.name)!r}")
    tops = sorted(
        (len(one.name.parts), one.name.parent) for one in found if one.name.name in FIRST_STAGES
    )
    if not tops:
        raise Invalid(
            "the archive has no boot files of a board: none of " + ", ".join(FIRST_STAGES)
        )
    top = tops[0][1]
    return {
        one.name.relative_to(top): one for one in found
        if one.name.is_relative_to(top) and one.name.name != MARKER
    }


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

    def _digest(self) -> str:
        with open(self.archive, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _known(self) -> list[str]:
        """Return the lines of the marker that tell archives."""
        text = self.machine.read(self.state / STATIC / MARKER) or ""
        return [line for line in text.splitlines() if line.startswith("sha256:")]

    def lacks(self) -> list[str]:
        """See Step."""
        known = f"sha256:{self._digest()}" in self._known()
        return [] if known else [f"the files of {self.archive.name} are not in {STATIC}"]

    def apply(self) -> None:
        """See Step. A call that was cut is done again: the marker is written last."""
        place = self._place
        with members(self.archive) as found:
            files = chosen(found)
            for name, member in files.items():
                self._write(place / name, member)
            newest = int(max(member.changed for member in files.values()))
        lines = [*self._known(), f"sha256:{self._digest()}", str(newest)]
        self.machine.write(self.state / STATIC / MARKER, "\n".join(lines) + "\n")

    def _write(self, target: Path, member: Member) -> None:
        for above in reversed(target.relative_to(self._place).parents):
            directory = self._place / above
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            if directory.is_symlink():
                raise Invalid(f"{directory} is a link; nothing is written behind it")
        beside = target.with_name(f".{target.name}.new")
        beside.unlink(missing_ok=True)
        with member.open() as content, open(beside, "xb") as stream:
            shutil.copyfileobj(content, stream, _PIECE)
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(0o644)
        beside.replace(target)

    def undo(self) -> None:
        """They stay: boards may wait for them."""
