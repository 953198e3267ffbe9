"""Become a program that sees a part of the file system: needs the standard library alone.

    view.py WHAT PLACE CAPABILITIES PROGRAM [ARGUMENT…]

WHAT is a JSON object of lists of paths: `read` (read-only, left out where it is missing),
`write`, and `trees`, in which mounts and unmounts of the server appear while the program runs
(mount_namespaces(7): the mounts are slaves of the server's, which must be shared). PLACE is an
empty directory. The process stays the same one, so that signals and its number are the program's.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
from collections.abc import Sequence

from walt.common.errors import in_words
from walt.common.mounts import is_mounted

_CLONE_NEWNS = 0x00020000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT = 1, 2, 4, 8, 32  # mount(2)
_BIND, _REC, _SLAVE, _SHARED = 4096, 16384, 1 << 19, 1 << 20
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# Devices that programs want; not those of disks, whose file systems hold everything.
_DEVICES = ("null", "zero", "random", "urandom")
# Block devices by which file systems of loop devices are told apart (libblkid). It looks at all of
# /dev for each other file system, and each time: those to come are few hundred.
_LOOP_MAJOR, _MORE_LOOPS = 7, 256
_BLOCK = ("/sys/dev/block", "/sys/devices/virtual/block")
_SETTINGS = ("/proc/sys/kernel/cap_last_cap",)  # setpriv asks which capabilities there are
_libc = ctypes.CDLL(None, use_errno=True)


def main(argv: Sequence[str]) -> None:
    """Be the program. Raises OSError."""
    what, place, capabilities, *program = argv
    paths = json.loads(what)
    for path in paths["trees"]:
        # Another program may have made all mounts of the machine private meanwhile.
        if is_mounted(path):
            _mount("none", path, None, _SHARED | _REC)
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise _error("unshare")
    _mount("none", "/", None, _SLAVE | _REC)
    _mount("view", place, "tmpfs", _NOSUID | _NODEV, "mode=755,size=16m")
    view = _View(place)
    for path in (*paths["read"], *_BLOCK, *_SETTINGS):
        if os.path.lexists(path):
            view.show(path, _RDONLY | _NOSUID | _NODEV)
    for path in paths["trees"]:
        view.show(path, _NOSUID | _NODEV, deep=True)
    for path in paths["write"]:
        view.show(path, _NOSUID | _NODEV | _NOEXEC)
    view.make_devices(paths["trees"])
    view.make_scratch()
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
            self._make_file(target)
        _mount(path, target, None, _BIND | (_REC if deep else 0))
        _mount("none", target, None, _REMOUNT | _BIND | flags)

    def make_devices(self, trees: Sequence[str]) -> None:
        """Make /dev: few devices, and those of the file systems that are shown."""
        place = f"{self._place}/dev"
        os.mkdir(place)
        _mount("dev", place, "tmpfs", _NOSUID | _NOEXEC, "mode=755,size=16m")
        for name in _DEVICES:
            self._make_file(f"{place}/{name}")
            _mount(f"/dev/{name}", f"{place}/{name}", None, _BIND)
        present = [int(one[4:]) for one in os.listdir("/sys/block") if one.startswith("loop")]
        made = {
            os.makedev(_LOOP_MAJOR, number): f"loop{number}"
            for number in range(max(present, default=-1) + 1 + _MORE_LOOPS)
        }
        for tree in trees:
            device = os.stat(tree).st_dev
            # One that holds the tree alone: what is around it is not for the program.
            if os.major(device) and device != os.stat(os.path.dirname(tree)).st_dev:
                made.setdefault(device, _name(device))
        for device, name in made.items():
            os.makedirs(os.path.dirname(f"{place}/{name}"), exist_ok=True)
            os.mknod(f"{place}/{name}", stat.S_IFBLK | 0o600, device)
        # It may make devices: not here, where they would be usable.
        _mount("none", place, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NOEXEC)

    def make_scratch(self) -> None:
        """Make a small /tmp: ganesha tries there which locks the kernel has."""
        place = f"{self._place}/tmp"  # noqa: S108 (in a root directory of its own)
        os.mkdir(place)
        _mount("tmp", place, "tmpfs", _NOSUID | _NODEV | _NOEXEC, "mode=700,size=1m")

    def make_proc(self) -> None:
        """Make /proc: of this process alone; others' root directories are seen in theirs."""
        own = f"/proc/{os.getpid()}"
        os.makedirs(f"{self._place}{own}")
        _mount(own, f"{self._place}{own}", None, _BIND)
        os.symlink(str(os.getpid()), f"{self._place}/proc/self")
        os.symlink("self/mounts", f"{self._place}/proc/mounts")
        os.makedirs(f"{self._place}/etc", exist_ok=True)
        os.symlink("/proc/mounts", f"{self._place}/etc/mtab")

    def enter(self) -> None:
        """Make the view the root directory, and nothing else reachable."""
        os.chdir(self._place)
        if _libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b".") != 0:
            raise _error("pivot_root")
        # The old one lies on the new one now (pivot_root(2)).
        if _libc.umount2(b".", _DETACH) != 0:
            raise _error("umount")
        os.chdir("/")
        _mount("none", "/", None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)

    @staticmethod
    def _make_file(path: str) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _name(device: int) -> str:
    """Return the name below /dev of a block device."""
    with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/uevent") as told:
        return next(line[8:].strip() for line in told if line.startswith("DEVNAME="))


def _mount(
    source: str, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    """Mount as mount(2). Raises OSError."""
    words = (
        os.fsencode(source), os.fsencode(target), None if kind is None else kind.encode(),
        ctypes.c_ulong(flags), None if options is None else options.encode(),
    )
    if _libc.mount(*words) != 0:
        raise _error(f"mount {target}")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        raise SystemExit(
            f"the program cannot be started: {in_words(error)} ({error.filename})"
        ) from None
