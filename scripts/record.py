"""Run a command and record the programs that it starts: record.py FILE COMMAND…

The programs of shell scripts, servers and workers are recorded as well, because the kernel
tells (fanotify(7), FAN_OPEN_EXEC: every file that is opened to be executed). FILE gets one
path a line, each once, while the command runs. What does not count: files that another
root directory or another file system shows (containers, images of nodes), and processes
that do not descend from the command.

The command finds the name of the file in $WALT_TEST_PROGRAMS. Where recording is not
possible (without root, in some containers), a line on stderr says so, the variable is
not set, and the command runs all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

VARIABLE = "WALT_TEST_PROGRAMS"

# linux/fanotify.h, linux/prctl.h, fcntl.h
FAN_CLOEXEC, FAN_NONBLOCK, FAN_UNLIMITED_QUEUE = 0x1, 0x2, 0x10
FAN_MARK_ADD, FAN_MARK_FILESYSTEM = 0x1, 0x100
FAN_OPEN_EXEC = 0x1000
AT_FDCWD = -100
PR_SET_CHILD_SUBREAPER = 36
# event_len, vers, reserved, metadata_len, mask, fd, pid
EVENT = struct.Struct("=IBBHQii")

libc = ctypes.CDLL(None, use_errno=True)
libc.fanotify_mark.argtypes = (
    ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p,
)


def _called(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def watch(directories: list[str]) -> int:
    """Return a descriptor that tells what is executed from the file systems of these."""
    watching = _called(libc.fanotify_init(
        FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE, os.O_RDONLY | os.O_CLOEXEC
    ))
    for directory in directories:
        if os.path.isdir(directory):
            _called(libc.fanotify_mark(
                watching, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN_EXEC, AT_FDCWD,
                directory.encode(),
            ))
    return watching


def events(watching: int) -> Iterator[tuple[str, int]]:
    """Return the programs that were started since the last call, and by which process."""
    while True:
        try:
            data = os.read(watching, 65536)
        except BlockingIOError:
            return
        while data:
            length, _, _, _, _, descriptor, pid = EVENT.unpack_from(data)
            data = data[length:]
            if descriptor < 0:
                continue
            try:
                path = os.readlink(f"/proc/self/fd/{descriptor}")
                # The same path names another file where another root directory shows it.
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    yield path, pid
            except OSError:
                pass  # it is gone, or out of our sight
            finally:
                os.close(descriptor)


def descends(pid: int, ancestor: int) -> bool:
    """Tell whether a process descends from `ancestor`; one that has ended, too."""
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                pid = int(stat.read().rpartition(")")[2].split()[1])
        except OSError:
            return True
    return pid == ancestor  # 0: of another process namespace


def record(watching: int, output: TextIO, command: list[str]) -> int:
    """Run the command to its end while recording; return its exit status."""
    _called(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))  # orphans stay descendants
    # A short-lived process is asked about before it is gone; without this, most are.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    wake, waker = os.pipe()
    for end in (wake, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = subprocess.Popen(command, env=os.environ | {VARIABLE: output.name})
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child.pid, number))
    seen: set[str] = set()
    status = None
    while status is None:
        select.select([watching, wake], [], [])
        for path, pid in events(watching):
            if path not in seen and descends(pid, os.getpid()):
                seen.add(path)
                print(path, file=output, flush=True)
        status = _bury(child, wake)
    return 128 - status if status < 0 else status


def _bury(child: subprocess.Popen[bytes], wake: int) -> int | None:
    """Take the status of whoever ended; return the one of `child` if it did."""
    try:
        os.read(wake, 4096)
    except BlockingIOError:
        return None
    status = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
            if ended[0] == child.pid:
                status = child.returncode = os.waitstatus_to_exitcode(ended[1])
    except ChildProcessError:
        pass
    return status


def main(words: list[str]) -> int:
    """Run the command, recorded if that is possible; return its exit status."""
    file, command = Path(words[0]).absolute(), words[1:]
    try:
        watching = watch(["/", str(file.parent), *os.environ.get("PATH", "").split(":")])
    except OSError as error:
        print(f"The programs that are started are not recorded: {error.strerror}; this needs root"
              " and fanotify(7).", file=sys.stderr)
        os.execvp(command[0], command)  # noqa: S606
    with open(file, "w", encoding="utf-8", errors="surrogateescape") as output:
        return record(watching, output, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
