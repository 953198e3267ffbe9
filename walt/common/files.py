"""Files replaced atomically: a reader sees the old text or the new one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomic(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Replace `path` by `data`: write beside, rename; nothing waits for the disk.

    For what can be made again: after a power failure the file may be the old one,
    the new one, or empty. Raises OSError (no space, no permission); the old file is
    then intact.
    """
    _replace(path, data, mode, durable=False)


def write_durable(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Replace `path` as write_atomic does, and return when it survives a power failure.

    That may take seconds on a busy disk: not for turns of a reactor.
    """
    _replace(path, data, mode, durable=True)
    keep_names(path.parent)


def keep_names(directory: Path) -> None:
    """Return when the names in a directory, renamed files included, survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_durable(beside: Path, path: Path) -> None:
    """Give a finished file its name, and return when it survives a power failure.

    Whatever happens meanwhile, it is whole under that name, or not there. Raises OSError.
    """
    with beside.open("rb") as stream:
        os.fsync(stream.fileno())
    beside.rename(path)
    keep_names(path.parent)


def _replace(path: Path, data: bytes | str, mode: int, *, durable: bool) -> None:
    with replaced(path, mode, durable=durable) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def replaced(path: Path, mode: int = 0o644, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of `path` at the end as write_atomic's does.

    It does not where writing it fails, or is given up.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.rename(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_if_changed(path: Path, data: bytes | str, mode: int = 0o644) -> bool:
    """Replace `path` when its content differs; return whether it was written."""
    raw = data.encode() if isinstance(data, str) else data
    try:
        if path.read_bytes() == raw:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, raw, mode)
    return True


def make_hidden(path: Path, group: int | None = None) -> None:
    """Make a directory that other accounts cannot reach, whatever its own mode is.

    Its parent is closed to them; a `group` (its number) may go through.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if group is not None:
        os.chown(path.parent, -1, group)
    path.parent.chmod(0o700 if group is None else 0o710)
    path.mkdir(exist_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a directory that others filled, with all that is in it, as far as possible.

    Blocking, for workers. shutil.rmtree calls itself for each level: some 1,000 are its end.
    """
    subprocess.run(
        ["rm", "-rf", "--one-file-system", "--", os.fspath(path)], check=False,
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
