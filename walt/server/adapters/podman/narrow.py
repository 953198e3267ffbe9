"""Become a program that sees few directories of the server: needs the standard library alone.

    narrow.py WHAT PLACE PROGRAM [ARGUMENT…]

WHAT is a JSON object of lists of paths: `read` (read-only, left out where it is missing) and
`write`. PLACE is an empty directory. The program sees these at their places, a /proc, whose
settings of the kernel are read-only, the /sys of its network, its control groups, and devices
that are no disks. A path that it follows for a stranger, out of a container's tree, ends here.

The process must be the first one of a namespace of process ids, with a /proc of that: root
directories of other processes are in theirs.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWNS = 0x20000
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# Programs, libraries, names; accounts without their passwords; what TLS and podman want to know.
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives",
    "/etc/ca-certificates", "/etc/containers", "/etc/group", "/etc/hosts", "/etc/ld.so.cache",
    "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types",
    "/etc/nsswitch.conf", "/etc/os-release", "/etc/passwd", "/etc/pki", "/etc/protocols",
    "/etc/resolv.conf", "/etc/services", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
    "/etc/subgid", "/etc/subuid", "/run/systemd/resolve",
)
DEVICES = ("fuse", "full", "net/tun", "null", "random", "tty", "urandom", "zero")
SCRATCH = ("/run", "/tmp", "/var/tmp")  # noqa: S108 (in a root directory of its own)
# What a program could change the machine by, if a path out of a tree led here.
SETTINGS = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus")
HIDDEN = ("/proc/kcore", "/proc/kallsyms", "/proc/timer_list")
CGROUPS = "/sys/fs/cgroup"
_libc = ctypes.CDLL(None, use_errno=True)


def main(argv: Sequence[str]) -> None:
    """Be the program. Raises OSError."""
    what, place, *program = argv
    paths = json.loads(what)
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise _error("unshare")
    _mount("none", "/", None, _PRIVATE | _REC)
    _mount("narrow", place, "tmpfs", _NOSUID | _NODEV, "mode=755,size=64m")
    for path in SCRATCH:
        os.makedirs(f"{place}{path}", mode=0o755)
        _mount("scratch", f"{place}{path}", "tmpfs", _NOSUID | _NODEV, "mode=1777")
    for path in (*SYSTEM, *paths["read"]):
        if os.path.lexists(path):
            _show(place, path, _RDONLY)
    for path in paths["write"]:
        _show(place, path, None)
    _make_devices(place)
    _make_proc(place)
    _make_sys(place)
    os.chdir(place)
    if _libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b".") != 0:
        raise _error("pivot_root")
    if _libc.umount2(b".", _DETACH) != 0:  # the old one, which lies on the new one
        raise _error("umount")
    os.chdir("/")
    os.execvp(program[0], program)  # noqa: S606 (a vector, no shell)


def _show(place: str, path: str, flags: int | None) -> None:
    """Have what is at an absolute path at the same one; a link stays a link."""
    target = f"{place}{path}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        if not os.path.lexists(target):
            os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        _make_file(target)
    _mount(path, target, None, _BIND | _REC)
    if flags is not None:
        _mount("none", target, None, _REMOUNT | _BIND | flags)


def _make_devices(place: str) -> None:
    os.makedirs(f"{place}/dev/net")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            _make_file(f"{place}/dev/{name}")
            _mount(f"/dev/{name}", f"{place}/dev/{name}", None, _BIND)
    for name in ("pts", "shm"):  # podman keeps its locks in shared memory
        os.mkdir(f"{place}/dev/{name}")
        _mount(f"/dev/{name}", f"{place}/dev/{name}", None, _BIND)
    for name, target in (
        ("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
    ):
        os.symlink(target, f"{place}/dev/{name}")


def _make_proc(place: str) -> None:
    os.mkdir(f"{place}/proc")
    _mount("/proc", f"{place}/proc", None, _BIND | _REC)
    for path in SETTINGS:
        if os.path.exists(path):
            _mount(f"{place}{path}", f"{place}{path}", None, _BIND)
            _mount("none", f"{place}{path}", None, _REMOUNT | _BIND | _RDONLY)
    for path in HIDDEN:
        if os.path.exists(path):
            _mount("/dev/null", f"{place}{path}", None, _BIND)


def _make_sys(place: str) -> None:
    os.mkdir(f"{place}/sys")
    _mount("/sys", f"{place}/sys", None, _BIND)
    _mount("none", f"{place}/sys", None, _REMOUNT | _BIND | _RDONLY)
    _mount(CGROUPS, f"{place}{CGROUPS}", None, _BIND | _REC)
    # The program that the kernel starts, on the machine, when a group is empty (cgroups(7)).
    for agent in Path(CGROUPS).glob("*/release_agent"):
        _mount("/dev/null", f"{place}{agent}", None, _BIND)
        _mount("none", f"{place}{agent}", None, _REMOUNT | _BIND | _RDONLY)


def _make_file(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


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
            f"the program cannot be started: {error.strerror} ({error.filename})"
        ) from None
