"""Furnish a container before anything of its image runs: name its host, uncover its files.

    furnish.py PID NAME [FILE]…

podman covers some files of an image by files of its own; what is written there would not be
in the image. FILE is the end of the path of such a file of podman on the server (its file
system may be mounted in several places): the mount of it is undone. The host of the container
is called NAME at the end, which is what its first program waits for (see `gate`).

The program enters the container's mounts and starts nothing there: whatever it would start by
a path there could be a file of the image, with the rights of the server. A mount is found by
what is mounted, not by where, and no link is followed (UMOUNT_NOFOLLOW, umount2(2)).

Status: 0, or 1 when the container has ended, with the reason on the error output.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import sys
from collections.abc import Iterable

from walt.common.strangers import import_nothing_more

_CLONE_NEWNS, _CLONE_NEWUTS = 0x20000, 0x4000000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_libc = ctypes.CDLL(None, use_errno=True)


def gate(helper: str, name: str, argv: Iterable[str]) -> list[str]:
    """Return the vector that runs a program once the host is called `name`."""
    wait = f'until [ "$("$0" hostname)" = {name} ]; do "$0" usleep 20000; done; exec "$0" env "$@"'
    return [helper, "sh", "-c", wait, helper, *argv]


def covers(mountinfo: str, files: Iterable[str]) -> list[str]:
    """Return where files of podman are mounted, the last mount first (proc_pid_mountinfo(5))."""
    ends = tuple(f"/{file}" for file in files)
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and _unescaped(fields[3]).endswith(ends):
            found.append(_unescaped(fields[4]))
    return found[::-1]


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _call(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def furnish(pid: int, name: str, files: Iterable[str]) -> None:
    """Do it. Raises OSError."""
    spaces = {}
    for kind in ("uts", "mnt"):
        spaces[kind] = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        if os.path.sameopenfile(spaces[kind], os.open(f"/proc/self/ns/{kind}", os.O_RDONLY)):
            raise ProcessLookupError(f"process {pid} is of the server, and no container")
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        places = covers(file.read(), files)
    import_nothing_more()
    _call(_libc.setns(spaces["mnt"], _CLONE_NEWNS))
    for place in places:
        _call(_libc.umount2(os.fsencode(place), _MNT_DETACH | _UMOUNT_NOFOLLOW))
    _call(_libc.setns(spaces["uts"], _CLONE_NEWUTS))
    socket.sethostname(name)


def main(words: list[str]) -> int:
    """Run the command line; return the status."""
    try:
        furnish(int(words[0]), words[1], words[2:])
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
