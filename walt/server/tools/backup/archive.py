"""The file of a backup: a tar archive whose last member tells all the others.

`MANIFEST.json`: {"format": 1, "walt": version, "made": epoch seconds, "members": {name: {"size",
"sha256", "mode"}}, "images": [{"name", "id"}]}. Members are plain files with plain names; an
archive that has anything else, or other contents than its manifest tells, is refused whole.
Blocking code, for tools.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import walt
from walt.common.archives import UNREADABLE, BoundedMember, members
from walt.common.errors import Invalid, in_words

FORMAT = 1
MANIFEST = "MANIFEST.json"
MOST_MEMBERS = 1_000_000
LARGEST_MANIFEST = 512 << 20  # bytes
LONGEST_NAME = 400
PIECE = 1 << 20  # bytes read at once
_PART = r"[A-Za-z0-9_.@:+][A-Za-z0-9_.@:+-]*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_SUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """What the manifest says of a file; `mode` are its permissions."""

    size: int
    sha256: str
    mode: int


@dataclass(frozen=True)
class Contents:
    """What a verified archive holds; `images` are ids by name."""

    version: str
    made: float
    members: Mapping[str, Member]
    images: Mapping[str, str]


def is_name(text: object) -> bool:
    """Tell whether a member may be called so: plain words, never up, never absolute."""
    return (
        isinstance(text, str) and len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None
        and not any(part in (".", "..") for part in text.split("/"))
    )


class Writer:
    """Makes an archive, which has its name when it is whole and on the disk."""

    def __init__(self, file: Path) -> None:
        self._file, self._beside = file, file.with_name(f".{file.name}.new")
        self._members: dict[str, dict[str, Any]] = {}
        descriptor = os.open(
            self._beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600
        )
        self._stream = open(descriptor, "wb")  # noqa: SIM115 (closed by `close` or `abandon`)
        self._tar = tarfile.open(  # noqa: SIM115 (as above)
            fileobj=self._stream, mode="w|", format=tarfile.PAX_FORMAT
        )

    def add(self, name: str, stream: IO[bytes], size: int, mode: int = 0o600) -> None:
        """Add `size` bytes of a stream. Raises Invalid for a name, or a stream that is shorter."""
        if not is_name(name):
            raise Invalid(f"{name[:80]!r} cannot be in a backup: its name is not plain")
        counted = _Counted(stream, size)
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, mode, int(time.time())
        try:
            self._tar.addfile(info, counted)
        except OSError as error:
            if error.errno is not None:
                raise
            raise Invalid(f"{name} became shorter while it was read") from None
        self._members[name] = {
            "size": size, "sha256": counted.state.hexdigest(), "mode": mode,
        }

    def add_bytes(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Add a small file."""
        self.add(name, io.BytesIO(data), len(data), mode)

    def add_file(self, name: str, path: Path) -> None:
        """Add a file that does not change meanwhile."""
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            self.add(name, stream, found.st_size, found.st_mode & 0o777)

    def close(self, images: Mapping[str, str]) -> None:
        """Write the manifest; the file is there when this returns, whatever happens then."""
        text = json.dumps({
            "format": FORMAT, "walt": walt.__version__, "made": time.time(),
            "members": self._members,
            "images": [{"name": name, "id": number} for name, number in images.items()],
        }).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(text), 0o600
        self._tar.addfile(info, io.BytesIO(text))
        self._tar.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._beside.rename(self._file)
        directory = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def abandon(self) -> None:
        """Remove what was written, unless it is whole."""
        self._stream.close()
        self._beside.unlink(missing_ok=True)


class _Counted(io.RawIOBase):
    """Reads so many bytes of a stream, and sums them."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size
        self.state = hashlib.sha256()

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return some more bytes."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._stream.read(wanted)
        self._left -= len(data)
        self.state.update(data)
        return data


def _opened(file: Path) -> tarfile.TarFile:
    return tarfile.open(file, mode="r|", tarinfo=BoundedMember)


def verified(file: Path) -> Contents:
    """Read all of an archive; return what it holds. Raises Invalid, OSError."""
    found: dict[str, tuple[int, str]] = {}
    manifest: bytes | None = None
    try:
        with _opened(file) as archive:
            for member in members(archive):
                if manifest is not None:
                    raise Invalid("there is something after its manifest")
                if not member.isreg() or not is_name(member.name) or member.name in found:
                    raise Invalid(f"it holds {member.name[:80]!r}, which no backup does")
                if len(found) >= MOST_MEMBERS:
                    raise Invalid(f"it holds more than {MOST_MEMBERS} files")
                stream = archive.extractfile(member)
                assert stream is not None
                if member.name == MANIFEST:
                    if member.size > LARGEST_MANIFEST:
                        raise Invalid("its manifest is too long")
                    manifest = stream.read()
                    continue
                state = hashlib.sha256()
                while data := stream.read(PIECE):
                    state.update(data)
                found[member.name] = (member.size, state.hexdigest())
        if manifest is None:
            raise Invalid("it has no manifest: it is no backup, or not whole")
        contents = read_manifest(manifest)
    except (tarfile.TarError, EOFError, *UNREADABLE) as error:
        raise Invalid(f"{file} is no backup that can be read: {in_words(error)}") from None
    except Invalid as error:
        raise Invalid(f"{file} is refused: {error}") from None
    told = {name: (member.size, member.sha256) for name, member in contents.members.items()}
    if told != found:
        wrong = sorted(
            name for name in told.keys() | found.keys() if told.get(name) != found.get(name)
        )
        raise Invalid(f"{file} is refused: not as its manifest tells: {', '.join(wrong[:5])}")
    return contents


def read_manifest(text: bytes) -> Contents:
    """Return what a manifest tells. Raises Invalid."""
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise Invalid(f"it is of format {found['format']!r}; this WalT reads {FORMAT}")
        listed = {
            name: Member(member["size"], member["sha256"], member["mode"])
            for name, member in found["members"].items()
        }
        images = {image["name"]: image["id"] for image in found["images"]}
        version, made = found["walt"], found["made"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid("its manifest makes no sense") from None
    for name, member in listed.items():
        if not (
            is_name(name) and type(member.size) is int and member.size >= 0
            and type(member.mode) is int
            and isinstance(member.sha256, str) and _SUM.fullmatch(member.sha256)
        ):
            raise Invalid("its manifest makes no sense")
    if not (
        isinstance(version, str) and isinstance(made, (int, float))
        and all(isinstance(text, str) for pair in images.items() for text in pair)
    ):
        raise Invalid("its manifest makes no sense")
    return Contents(version, made, listed, images)


def walk(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the members of a verified archive as they come, but for the manifest."""
    with _opened(file) as archive:
        for member in members(archive):
            stream = archive.extractfile(member)
            if member.name != MANIFEST and stream is not None:
                yield member.name, stream
