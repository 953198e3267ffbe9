"""Overlay mounts by mount(2): blocking code for workers.

mount(8) is not used: newer versions pass each option through fsconfig(2), which
takes 256 bytes at most, and an image has up to 128 layers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

from walt.common.errors import Busy, CommandFailed
from walt.common.files import remove_tree
from walt.common.mounts import is_mounted

_libc = ctypes.CDLL(None, use_errno=True)
MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_RELATIME = 2, 4, 32, 4096, 1 << 21
# An account of this machine gains nothing from files that somebody put into an image.
FLAGS = MS_NOSUID | MS_NODEV | MS_RELATIME
CHANGES = "changes"  # beside the mount, for root alone: it is on no mount of its own
MAX_OPTIONS = 4095  # one page, with its final zero (mount(2))
UNMOUNT_PATIENCE = 5.0  # seconds
UMOUNT_NOFOLLOW = 8
MNT_DETACH = 2


def _fail(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), what)


def mount_image(storage: Path, layers: Sequence[str], place: Path) -> bool:
    """Mount layers at `place/fs`, writable in `place/changes`; False if it was mounted.

    `storage` is the directory `overlay` of podman's storage, `layers` its layer
    directories, top first, relative to it. The changes of a mount that a crash undid
    are used again, so that file handles of nodes stay valid; when the kernel refuses
    them (they belonged to other layers), they are made anew. Raises CommandFailed.
    """
    point = place / "fs"
    point.mkdir(parents=True, exist_ok=True)
    if is_mounted(point):
        _call(None, point, None, FLAGS | MS_REMOUNT | MS_BIND, None)
        return False
    here = os.getcwd()
    os.chdir(storage)
    try:
        try:
            _mount_overlay(layers, place, point)
        except OSError as error:
            if error.errno not in (errno.ESTALE, errno.EINVAL, errno.EIO):
                raise
            _remove_changes(place)
            _mount_overlay(layers, place, point)
    except OSError as error:
        raise CommandFailed(f"cannot mount the image at {point}: {error.strerror}") from None
    finally:
        os.chdir(here)
    return True


def _mount_overlay(layers: Sequence[str], place: Path, point: Path) -> None:
    changes = place / CHANGES
    changes.mkdir(mode=0o700, exist_ok=True)
    for name in ("upper", "work"):
        if (place / name).is_dir():  # where servers before had it, for everybody to enter
            os.rename(place / name, changes / name)
        (changes / name).mkdir(mode=0o755, exist_ok=True)
    # Left by a storage driver that mounts with "volatile": it forbids another mount.
    remove_tree(changes / "work" / "work" / "incompat")
    options = (
        f"lowerdir={':'.join(layers)},upperdir={changes}/upper,workdir={changes}/work,"
        "index=on,nfs_export=on"
    ).encode()
    if len(options) > MAX_OPTIONS:
        raise OSError(errno.E2BIG, "too many layers: squash the image")
    _call(b"overlay", point, b"overlay", FLAGS, options)


def _call(
    source: bytes | None, point: Path, kind: bytes | None, flags: int, options: bytes | None
) -> None:
    """Mount as mount(2); raises OSError."""
    done = _libc.mount(source, os.fsencode(point), kind, ctypes.c_ulong(flags), options)
    if done != 0:
        raise _fail(str(point))


def _remove_changes(place: Path) -> None:
    for name in (CHANGES, "upper", "work"):
        remove_tree(place / name)


def unmount_image(place: Path, patience: float = UNMOUNT_PATIENCE) -> None:
    """Undo mount_image and remove `place`; it may be half done already.

    A busy mount is tried again every 50 ms for `patience` seconds, then Busy.
    """
    point = place / "fs"
    limit = time.monotonic() + patience
    while is_mounted(point):
        if _libc.umount2(os.fsencode(point), UMOUNT_NOFOLLOW) == 0:
            continue
        error = _fail(str(point))
        if error.errno != errno.EBUSY or time.monotonic() >= limit:
            raise Busy(f"cannot unmount {point}: {error.strerror}")
        time.sleep(0.05)
    if point.exists():
        point.rmdir()
    _remove_changes(place)
    if place.exists():
        place.rmdir()
