"""File systems in files of this machine: blocking code for workers and tools.

Made by mkfs(8), mounted by mount(8) on a loop device, which the kernel frees when the file
system is unmounted. Those that are large and grow are XFS, whose space is taken from the
disk in advance: what does not fit is refused to who writes it. Small ones are ext4, and take
from the disk what they hold.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from walt.common.errors import Busy, CommandFailed, Unavailable
from walt.common.mounts import is_mounted

LONGEST = 3600.0  # seconds for one program: images of years may have to be copied
PATIENCE = 5.0  # seconds for what uses a file system to end
SOLID, SPARSE = "xfs", "ext4"
_MAKE = {
    SOLID: ("mkfs.xfs", "-q", "-f", "-K"),
    # A small journal: the usual one would be most of what a node keeps.
    SPARSE: ("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", "-E", "nodiscard"),
}
_LOOP_CONTROL = Path("/dev/loop-control")
_LOOP_CTL_GET_FREE = 0x4C82  # linux/loop.h
_LOOP_MAJOR = 7
# Where the superblock has its magic number and its state (linux/fs/ext4/ext4.h).
_MAGIC_AT, _MAGIC, _ERRORS = 1024 + 0x38, b"\x53\xef", 2


def run(argv: Sequence[str], *, good: Sequence[int] = (0,)) -> str:
    """Run a program to its end; return its output. Raises CommandFailed, Unavailable."""
    try:
        done = subprocess.run(
            list(argv), capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, timeout=LONGEST,
        )
    except FileNotFoundError:
        raise Unavailable(f"{argv[0]} is not installed on the server") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{argv[0]} did not end within {LONGEST:g} s") from None
    if done.returncode not in good:
        words = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise CommandFailed(f"{argv[0]} failed (status {done.returncode}): {words}")
    return done.stdout


def make(file: Path, size: int, kind: str) -> None:
    """Make a file system of `size` bytes in a new file, which appears when it is whole.

    `kind` is SOLID or SPARSE; a disk that is full while somebody writes to a sparse one is
    an I/O error. Raises CommandFailed.
    """
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            if kind == SOLID:
                os.posix_fallocate(descriptor, 0, size)
            else:
                os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
        run([*_MAKE[kind], "--", str(beside)])
        os.rename(beside, file)
    except OSError as error:
        raise CommandFailed(f"cannot make {file}: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)


def mount(file: Path, point: Path, kind: str, options: str) -> None:
    """Mount a file at a directory, unless something is mounted there.

    What ext4 noted as damaged is repaired first. Raises CommandFailed.
    """
    if is_mounted(point):
        return
    point.mkdir(parents=True, exist_ok=True)
    if kind == SPARSE and _has_errors(file) and is_free(file):
        run(["e2fsck", "-p", str(file)], good=(0, 1))
    _make_loop_device()
    run(["mount", "-t", kind, "-o", f"loop,{options}", "--", str(file), str(point)])
    with contextlib.suppress(OSError):
        (point / "lost+found").rmdir()


def _has_errors(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(_MAGIC_AT)
        found = stream.read(4)
    return found[:2] == _MAGIC and bool(found[2] & _ERRORS)


def _make_loop_device() -> None:
    """Make the special file of the next free loop device, where nothing else does."""
    try:
        with _LOOP_CONTROL.open("rb") as control:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        os.mknod(f"/dev/loop{number}", stat.S_IFBLK | 0o600, os.makedev(_LOOP_MAJOR, number))
    except FileExistsError:
        pass
    except OSError as error:
        raise Unavailable(
            f"the kernel gives no loop device ({error.strerror}); run: modprobe loop"
        ) from None


def share(directory: Path) -> None:
    """Have what is mounted below a directory appear in views that are made of it.

    It becomes a mount point, unless it is one (mount_namespaces(7), shared subtrees).
    Raises CommandFailed.
    """
    if not is_mounted(directory):
        directory.mkdir(parents=True, exist_ok=True)
        run(["mount", "--bind", "--", str(directory), str(directory)])
    run(["mount", "--make-rshared", "--", str(directory)])


def unmount(point: Path) -> None:
    """Unmount what is mounted at a directory; Busy after `PATIENCE` seconds."""
    limit = time.monotonic() + PATIENCE
    while is_mounted(point):
        try:
            run(["umount", "--", str(point)])
        except CommandFailed as error:
            if time.monotonic() >= limit:
                raise Busy(f"cannot unmount {point}: {error}") from None
            time.sleep(0.05)


def device_of(file: Path) -> str | None:
    """Return the loop device of a file, None if it has none."""
    listed = run(["losetup", "--noheadings", "--output", "NAME", "--associated", str(file)])
    return next(iter(listed.split()), None)


def is_free(file: Path) -> bool:
    """Tell whether no loop device has a file.

    The kernel gives a device back some time after its file system was unmounted: when nobody
    looks at it any more (udev does, after each change). `PATIENCE` seconds are given for that.
    """
    limit = time.monotonic() + PATIENCE
    while device_of(file) is not None:
        if time.monotonic() >= limit:
            return False
        time.sleep(0.05)
    return True


def grow(file: Path, point: Path, more: int) -> None:
    """Make a solid file, mounted at `point`, larger by `more` bytes; raises CommandFailed."""
    device = device_of(file)
    if device is None:
        raise CommandFailed(f"{file} is not mounted")
    size = file.stat().st_size
    descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
    try:
        os.posix_fallocate(descriptor, size, more)
    except OSError as error:
        os.ftruncate(descriptor, size)
        if error.errno != errno.ENOSPC:
            raise
        raise CommandFailed(f"no space left for {file}") from None
    finally:
        os.close(descriptor)
    run(["losetup", "--set-capacity", device])
    run(["xfs_growfs", "-d", str(point)])
