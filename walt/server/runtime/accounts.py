"""Files and directories that accounts of daemons own, touched by a server that is root.

Who owns a directory may put a link, a pipe or a device in place of each file in it: nothing
below is followed that root did not make.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def give_directory(path: Path, account: str, group: str | None = None, mode: int = 0o700) -> None:
    """Make a directory of an account (and of the group of this name, else of its own group).

    Directories above it are root's. Raises OSError, KeyError (no such account).
    """
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    _give(os.open(path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS), account, group, mode)


def group_of(account: str) -> int:
    """Return the number of the group that an account has by itself. Raises KeyError."""
    return pwd.getpwnam(account).pw_gid


def give_file(path: Path, account: str, mode: int = 0o644) -> None:
    """Make a file of an account in a directory that it owns, or take one that it has.

    Raises OSError for what is no file of its own: a link, a pipe, a second name of another file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, mode)
    try:
        _check(descriptor, path)
    except OSError:
        os.close(descriptor)
        raise
    _give(descriptor, account, None, mode)


def read_file(path: Path, limit: int) -> bytes:
    """Return a file that lies in a directory of an account.

    Raises OSError, also for what is no file, and for more than `limit` bytes.
    """
    with open(os.open(path, os.O_RDONLY | _FLAGS), "rb") as file:
        _check(file.fileno(), path)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"{path} has more than {limit >> 20} MiB")
    return data


def _check(descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise OSError(f"{path} is no file of its own: remove it")


def _give(descriptor: int, account: str, group: str | None, mode: int) -> None:
    owner = pwd.getpwnam(account)
    number = owner.pw_gid if group is None else grp.getgrnam(group).gr_gid
    try:
        os.fchown(descriptor, owner.pw_uid, number)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
