"""Become a program that sees few directories of the server: for what strangers' trees are given to.

    narrow.py WHAT PLACE PROGRAM [ARGUMENT…]

WHAT is a JSON object of lists of paths: `read` (read-only, left out where it is missing) and
`write`. PLACE is an empty directory. The program sees these at their places, a /proc, whose
settings of the kernel are read-only, the /sys of its network, its control groups, and devices
that are no disks. A path that it follows for a stranger, out of a container's tree, ends here.

The process must be the first one of a namespace of process ids, with a /proc of that: root
directories of other processes are in theirs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from walt.common.views import (
    NODEV,
    NOSUID,
    PRIVATE,
    RDONLY,
    enter,
    make_file,
    mount,
    own_mounts,
    show,
)

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


def main(argv: Sequence[str]) -> None:
    """Be the program. Raises OSError."""
    what, place, *program = argv
    paths = json.loads(what)
    own_mounts(PRIVATE)
    mount("narrow", place, "tmpfs", NOSUID | NODEV, "mode=755,size=64m")
    for path in SCRATCH:
        os.makedirs(f"{place}{path}", mode=0o755)
        mount("scratch", f"{place}{path}", "tmpfs", NOSUID | NODEV, "mode=1777")
    resolver = os.path.realpath("/etc/resolv.conf")  # often a link to what some program wrote
    for path in dict.fromkeys((*SYSTEM, resolver, *paths["read"])):
        if os.path.lexists(path):
            _show(place, path, RDONLY)
    for path in paths["write"]:
        _show(place, path)
    _make_devices(place)
    _make_proc(place)
    _make_sys(place)
    enter(place)
    os.execvp(program[0], program)  # noqa: S606 (a vector, no shell)


def _show(place: str, path: str, flags: int = 0) -> None:
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
        make_file(target)
    show(path, target, flags, deep=True)


def _make_devices(place: str) -> None:
    os.makedirs(f"{place}/dev/net")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            make_file(f"{place}/dev/{name}")
            show(f"/dev/{name}", f"{place}/dev/{name}")
    for name in ("pts", "shm"):  # podman keeps its locks in shared memory
        os.mkdir(f"{place}/dev/{name}")
        show(f"/dev/{name}", f"{place}/dev/{name}")
    for name, target in (
        ("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
    ):
        os.symlink(target, f"{place}/dev/{name}")


def _make_proc(place: str) -> None:
    os.mkdir(f"{place}/proc")
    show("/proc", f"{place}/proc", deep=True)
    for path in SETTINGS:
        if os.path.exists(path):
            show(f"{place}{path}", f"{place}{path}", RDONLY)
    for path in HIDDEN:
        if os.path.exists(path):
            show("/dev/null", f"{place}{path}")


def _make_sys(place: str) -> None:
    os.mkdir(f"{place}/sys")
    show("/sys", f"{place}/sys", RDONLY)
    show(CGROUPS, f"{place}{CGROUPS}", deep=True)
    # The program that the kernel starts, on the machine, when a group is empty (cgroups(7)).
    for agent in Path(CGROUPS).glob("*/release_agent"):
        show("/dev/null", f"{place}{agent}", RDONLY)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        raise SystemExit(
            f"the program cannot be started: {error.strerror} ({error.filename})"
        ) from None
