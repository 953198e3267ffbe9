"""Become a program that sees a part of the file system: needs the standard library alone.

    view.py WHAT PLACE CAPABILITIES PROGRAM [ARGUMENT…]

WHAT is a JSON object of lists of paths: `read` (read-only, left out where it is missing),
`write`, and `trees`, in which mounts and unmounts of the server appear while the program runs
(mount_namespaces(7): the mounts are slaves of the server's, which must be shared). PLACE is an
empty directory. The process stays the same one, so that signals and its number are the program's.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Sequence

from walt.common.errors import in_words
from walt.common.mounts import is_mounted
from walt.common.views import (
    BIND,
    NODEV,
    NOEXEC,
    NOSUID,
    RDONLY,
    REC,
    REMOUNT,
    SHARED,
    SLAVE,
    enter,
    make_file,
    mount,
    own_mounts,
    show,
)

# Devices that programs want; not those of disks, whose file systems hold everything.
_DEVICES = ("null", "zero", "random", "urandom")
# What libblkid reads about the block devices of trees. It looks at all of /dev for each file system
# that is mounted, at each change of an export: there is little.
_BLOCK = ("/sys/dev/block", "/sys/devices/virtual/block")
_SETTINGS = ("/proc/sys/kernel/cap_last_cap",)  # setpriv asks which capabilities there are


def main(argv: Sequence[str]) -> None:
    """Be the program. Raises OSError."""
    what, place, capabilities, *program = argv
    paths = json.loads(what)
    for path in paths["trees"]:
        # Another program may have made all mounts of the machine private meanwhile.
        if is_mounted(path):
            mount("none", path, None, SHARED | REC)
    own_mounts(SLAVE)
    mount("view", place, "tmpfs", NOSUID | NODEV, "mode=755,size=16m")
    view = _View(place)
    view.make_scratch()  # first: directories of the server may be below /tmp
    for path in (*paths["read"], *_BLOCK, *_SETTINGS):
        if os.path.lexists(path):
            view.show(path, RDONLY | NOSUID | NODEV)
    for path in paths["trees"]:
        view.show(path, NOSUID | NODEV, deep=True)
    for path in paths["write"]:
        view.show(path, NOSUID | NODEV | NOEXEC)
    view.make_devices(paths["trees"])
    view.make_proc()
    view.enter()
    os.execv("/usr/bin/setpriv", [  # noqa: S606 (a vector, no shell)
        "setpriv", "--pdeathsig", "KILL", "--bounding-set", capabilities, "--no-new-privs", "--",
        *program,
    ])


class _View:
    """The new root directory, at `place`."""

    def __init__(self, place: str) -> None:
        self._place = place

    def show(self, path: str, flags: int, *, deep: bool = False) -> None:
        """Have what is at an absolute path at the same one; a link stays a link."""
        target = f"{self._place}{path}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            return
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        elif os.path.lexists(target):
            return  # it is in a directory that is shown
        else:
            make_file(target)
        show(path, target, flags, deep=deep)

    def make_devices(self, trees: Sequence[str]) -> None:
        """Make /dev: few devices, and those of trees that are file systems of their own.

        XFS is told from another one by its UUID, which libblkid reads there: its fsid is the
        number of its device, which the next mount changes (xfs_fs_statfs, fs/xfs/xfs_super.c).
        That of ext4 derives from its UUID, so that persistent data needs no device here.
        """
        place = f"{self._place}/dev"
        os.mkdir(place)
        mount("dev", place, "tmpfs", NOSUID | NOEXEC, "mode=755,size=16m")
        for name in _DEVICES:
            make_file(f"{place}/{name}")
            show(f"/dev/{name}", f"{place}/{name}")
        made: dict[int, str] = {}
        for tree in trees:
            device = os.stat(tree).st_dev
            # One that holds the tree alone: what is around it is not for the program.
            if os.major(device) and device != os.stat(os.path.dirname(tree)).st_dev:
                made.setdefault(device, _name(device))
        for device, name in made.items():
            os.makedirs(os.path.dirname(f"{place}/{name}"), exist_ok=True)
            os.mknod(f"{place}/{name}", stat.S_IFBLK | 0o600, device)
        # It may make devices: not here, where they would be usable.
        mount("none", place, None, REMOUNT | BIND | RDONLY | NOSUID | NOEXEC)

    def make_scratch(self) -> None:
        """Make a small /tmp: ganesha tries there which locks the kernel has."""
        place = f"{self._place}/tmp"  # noqa: S108 (in a root directory of its own)
        os.mkdir(place)
        mount("tmp", place, "tmpfs", NOSUID | NODEV | NOEXEC, "mode=700,size=1m")

    def make_proc(self) -> None:
        """Make /proc: of this process alone; others' root directories are seen in theirs."""
        own = f"/proc/{os.getpid()}"
        os.makedirs(f"{self._place}{own}")
        show(own, f"{self._place}{own}")
        os.symlink(str(os.getpid()), f"{self._place}/proc/self")
        os.symlink("self/mounts", f"{self._place}/proc/mounts")
        os.makedirs(f"{self._place}/etc", exist_ok=True)
        os.symlink("/proc/mounts", f"{self._place}/etc/mtab")

    def enter(self) -> None:
        """Make the view the root directory, and nothing else reachable."""
        enter(self._place)
        mount("none", "/", None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)


def _name(device: int) -> str:
    """Return the name below /dev of a block device."""
    with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/uevent") as told:
        return next(line[8:].strip() for line in told if line.startswith("DEVNAME="))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        raise SystemExit(
            f"the program cannot be started: {in_words(error)} ({error.filename})"
        ) from None
