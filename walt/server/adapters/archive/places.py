"""Where the files of an archive lie. Blocking: for workers."""

from __future__ import annotations

import configparser
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pyarrow import fs

from walt.common.errors import Denied, Unavailable, in_words
from walt.common.files import keep_names

CONNECT_TIMEOUT, REQUEST_TIMEOUT = 5.0, 20.0  # seconds, of one request to a store
COPY_TIMEOUT = 300.0  # seconds of silence while a store copies a file inside of it
RESERVE = 1 << 30  # octets that files of lines leave free on a disk: others live there, too
ATTEMPTS = 3  # of a request that a store did not answer, or refused for the moment
MAX_TEXT = 64 << 20  # octets of a manifest
_PARTIAL = ".partial"


class Place(Protocol):
    """What workers do with files. All raise OSError."""

    @contextmanager
    def created(self, name: str) -> Iterator[Any]:
        """Give a new file to write; it has its name only when it is whole and on the disk."""

    def check_space(self) -> None:
        """Raise Unavailable when there is no room for more lines."""

    def opened(self, name: str) -> Any:
        """Return a file to read anywhere; FileNotFoundError."""

    def size(self, name: str) -> int:
        """Return the octets of a file; FileNotFoundError."""

    def read(self, name: str) -> bytes | None:
        """Return a small file, None where there is none."""

    def names(self) -> list[str]:
        """Return the names of all files."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


class Directory:
    """A directory of this machine, which nobody but this account can change.

    Even so, no link in it is followed. Raises Denied for another one, Unavailable for none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            _check_owner(path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be used: {in_words(error)}") from None

    @contextmanager
    def created(self, name: str) -> Iterator[Any]:
        """Write beside, wait for the disk, rename."""
        partial = self._path / f".{name}{_PARTIAL}"
        partial.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with open(os.open(partial, flags, 0o640), "wb") as file:
                os.fchmod(file.fileno(), 0o640)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.rename(partial, self._path / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        keep_names(self._path)

    def check_space(self) -> None:
        """Look at the file system."""
        found = os.statvfs(self._path)
        free = found.f_bavail * found.f_frsize
        if free < RESERVE:
            raise Unavailable(
                f"only {free >> 20} MiB are free at {self._path}, and {RESERVE >> 20} MiB are left"
                " to others; use a larger disk"
            )

    def opened(self, name: str) -> Any:
        """Open a file."""
        return open(os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW), "rb")

    def size(self, name: str) -> int:
        """Return its size."""
        return (self._path / name).lstat().st_size

    def read(self, name: str) -> bytes | None:
        """Read it."""
        try:
            with self.opened(name) as file:
                return bytes(file.read(MAX_TEXT))
        except FileNotFoundError:
            os.stat(self._path)  # the directory itself must be there
            return None

    def names(self) -> list[str]:
        """List the directory; what a cut left has the name that it was to have."""
        return [
            name[1:].removesuffix(_PARTIAL) if name.endswith(_PARTIAL) else name
            for name in os.listdir(self._path)
        ]

    def remove(self, name: str) -> None:
        """Remove it, and what a cut left of it."""
        for path in (self._path / name, self._path / f".{name}{_PARTIAL}"):
            path.unlink(missing_ok=True)


def _check_owner(path: Path) -> None:
    """Raise Denied where another account could put a link, or another directory; OSError."""
    whole = path.resolve(strict=True)
    for parent in (whole, *whole.parents):
        about = parent.stat()
        others = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if about.st_uid not in (0, os.geteuid()) or (
            others and (parent == whole or not about.st_mode & stat.S_ISVTX)
        ):
            raise Denied(
                f"{parent} can be changed by others than root; run: chown root {parent} &&"
                f" chmod go-w {parent}"
            )


class Bucket:
    """A store that speaks S3, through pyarrow."""

    def __init__(self, store: fs.FileSystem, patient: fs.FileSystem, root: str) -> None:
        self._store, self._patient, self._root = store, patient, root

    @contextmanager
    def created(self, name: str) -> Iterator[Any]:
        """Write beside, copy inside of the store: an upload that is cut would have the name."""
        partial = f"{self._root}{name}{_PARTIAL}"
        with self._store.open_output_stream(partial) as file:
            yield file
        self._patient.move(partial, f"{self._root}{name}")

    def check_space(self) -> None:
        """Nobody tells."""

    def opened(self, name: str) -> Any:
        """Open an object."""
        return self._store.open_input_file(self._root + name)

    def size(self, name: str) -> int:
        """Return its size."""
        found = self._store.get_file_info(self._root + name)
        if found.type != fs.FileType.File:
            raise FileNotFoundError(2, "No such file or directory", name)
        return int(found.size)

    def read(self, name: str) -> bytes | None:
        """Read it."""
        try:
            self.size(name)
        except FileNotFoundError:
            return None
        with self.opened(name) as file:
            return bytes(file.read(MAX_TEXT))

    def names(self) -> list[str]:
        """List the prefix."""
        found = self._store.get_file_info(
            fs.FileSelector(self._root.rstrip("/"), allow_not_found=True)
        )
        return [info.base_name.removesuffix(_PARTIAL) for info in found]

    def remove(self, name: str) -> None:
        """Remove it, and what a cut left of it."""
        for path in (self._root + name, self._root + name + _PARTIAL):
            if self._store.get_file_info(path).type == fs.FileType.File:
                self._store.delete_file(path)


def _credentials(path: Path) -> dict[str, str]:
    """Return the options of pyarrow for a file of credentials. Raises Denied, Unavailable."""
    try:
        with open(path, encoding="utf-8") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077:
                raise Denied(
                    f"{path} can be read by others; run: chown root: {path} && chmod 600 {path}"
                )
            parser = configparser.RawConfigParser()
            parser.read_string(file.read(1 << 16))
        found = parser["default"]
        options = {
            "access_key": found["aws_access_key_id"],
            "secret_key": found["aws_secret_access_key"],
        }
        if "aws_session_token" in found:
            options["session_token"] = found["aws_session_token"]
        return options
    except (configparser.Error, KeyError, ValueError):
        # What the parser says of it may hold the key itself.
        raise Unavailable(
            f"{path} must have a section [default] with aws_access_key_id and"
            " aws_secret_access_key"
        ) from None
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {in_words(error)}") from None


def place_of(target: Mapping[str, Any]) -> Place:
    """Return the place of an `ArchiveTarget`, as a dictionary. Raises Denied, Unavailable."""
    if target["directory"] is not None:
        return Directory(Path(target["directory"]))
    options: dict[str, Any] = {}
    if target["credentials"] is not None:
        options.update(_credentials(Path(target["credentials"])))
    if target["region"] is not None:
        options["region"] = target["region"]
    if target["endpoint"] is not None:
        scheme, _, rest = target["endpoint"].partition("://")
        options.update(scheme=scheme, endpoint_override=rest)
        options.setdefault("region", "us-east-1")  # without any, pyarrow asks Amazon
    try:
        store, patient = (
            fs.S3FileSystem(
                connect_timeout=CONNECT_TIMEOUT, request_timeout=timeout,
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS), **options,
            ) for timeout in (REQUEST_TIMEOUT, COPY_TIMEOUT)
        )
    except (OSError, ValueError) as error:
        raise Unavailable(f"the store cannot be used: {in_words(error)}") from None
    return Bucket(store, patient, f"{target['bucket']}/{target['prefix']}")
