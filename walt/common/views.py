"""Mounts of a process's own, and a root directory that shows a part of the file system.

For programs that make such a view and then become another program: mount(2), unshare(2),
pivot_root(2). All raise OSError with what was tried.
"""

from __future__ import annotations

import ctypes
import os

RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT = 1, 2, 4, 8, 32
BIND, REC, PRIVATE, SLAVE, SHARED = 4096, 16384, 1 << 18, 1 << 19, 1 << 20
_DETACH = 2
_CLONE_NEWNS = 0x20000
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts(propagation: int) -> None:
    """Give this process mounts of its own; `propagation` is PRIVATE or SLAVE."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise _error("unshare")
    mount("none", "/", None, propagation | REC)


def mount(
    source: str, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    """Mount as mount(2) does."""
    words = (
        os.fsencode(source), os.fsencode(target), None if kind is None else kind.encode(),
        ctypes.c_ulong(flags), None if options is None else options.encode(),
    )
    if _libc.mount(*words) != 0:
        raise _error(f"mount {target}")


def show(path: str, target: str, flags: int = 0, *, deep: bool = False) -> None:
    """Show at `target`, which is there, what is at `path`; `deep`: with what is mounted below."""
    mount(path, target, None, BIND | (REC if deep else 0))
    if flags:
        mount("none", target, None, REMOUNT | BIND | flags)


def make_file(path: str) -> None:
    """Make an empty file, for something to be shown there."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def enter(place: str) -> None:
    """Make a directory, on which something is mounted, the root, and nothing else reachable."""
    os.chdir(place)
    if _libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b".") != 0:
        raise _error("pivot_root")
    if _libc.umount2(b".", _DETACH) != 0:  # the old root, which lies on the new one now
        raise _error("umount")
    os.chdir("/")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
