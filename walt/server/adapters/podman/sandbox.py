"""Commands of an image, run in its tree without a way out: blocking code for workers.

bubblewrap gives them a root directory that was pivoted to, namespaces of their own (users,
processes, network…), and takes every capability. A plain chroot(2) with the
server's rights would be left by any program that knows how.
"""

from __future__ import annotations

import os
import resource
import selectors
import subprocess
import time
from pathlib import Path

from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.podman.imageroot import ImageRoot

LIMITS = (
    f"--as={1 << 30}",  # bytes of address space, each process
    f"--fsize={1 << 30}",  # bytes of a file
    "--core=0",
)
# Of all processes of a command together; they are looked at every EVERY seconds.
MAX_PROCESSES = 256
MAX_MEMORY = 2 << 30  # bytes
EVERY = 0.2
MAX_WORDS = 64 * 1024  # bytes of output that are kept
MAX_OUTPUT = 64 << 20  # bytes that are read
SYSTEM = ("/proc", "/dev")  # what bubblewrap mounts: it follows links to get there
USERS = Path("/proc/sys/user/max_user_namespaces")  # user_namespaces(7)
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def command(tree: Path, shell_command: str, boot_files: str | None = None) -> list[str]:
    """Return the vector that runs a command of the shell in an image's tree.

    `boot_files` is its directory of boot files, which TFTP may be reading meanwhile: the
    command does not change it.
    """
    boot = [] if boot_files is None else ["--ro-bind", f"{tree}{boot_files}", boot_files]
    users = ["--unshare-user", "--disable-userns"] if _has_user_namespaces() else []
    # Settings of the kernel ask who owns a file, not for capabilities: read-only they are.
    system = [word for path in SYSTEM for word in (f"--{path[1:]}", path, "--remount-ro", path)]
    return [
        "prlimit", *LIMITS, "--", "bwrap", "--unshare-all", *users, "--die-with-parent",
        "--new-session", "--cap-drop", "ALL", "--clearenv", "--setenv", "PATH", PATH,
        "--bind", str(tree), "/", *system, *boot, "--chdir", "/", "--",
        "/bin/sh", "-c", shell_command,
    ]


def _has_user_namespaces() -> bool:
    try:
        return int(USERS.read_text()) > 0
    except (OSError, ValueError):
        return False


def run(tree: Path, shell_command: str, timeout: float) -> tuple[int, str]:
    """Run a command of the shell in an image's tree (see `command`); return status and words.

    Raises CommandFailed when it does not end within `timeout` seconds, takes too much, or when
    the tree is not one to run things in, Unavailable without bubblewrap.
    """
    with ImageRoot(tree) as root:
        for path in SYSTEM:
            if root.kind(path) is None:
                with root.directory(path, create=True):
                    pass
            elif root.kind(path) != "directory":
                raise CommandFailed(f"{path} of the image is not a directory")
        boot_files = root.real("/boot") if root.kind("/boot") is not None else None
        if boot_files == "/" or (boot_files and root.kind(boot_files) != "directory"):
            raise CommandFailed("/boot of the image is not a directory")
    try:
        box = subprocess.Popen(
            command(tree, shell_command, boot_files), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise Unavailable("bubblewrap is missing; run: apt-get install bubblewrap") from None
    with box:
        try:
            words = _watched(box, time.monotonic() + timeout)
            box.wait(EVERY)
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"its command did not end within {timeout:g} s") from None
        finally:
            # All that it has started goes with it: its processes have a namespace of their own.
            box.kill()
    return box.returncode, words.decode(errors="replace")


def _watched(box: subprocess.Popen[bytes], end: float) -> bytes:
    """Return the first words of a command, when it is over.

    What each process may have is limited by the kernel, all together are counted here: root
    has no limit of processes (setrlimit(2)). Raises CommandFailed, TimeoutExpired.
    """
    words, size = bytearray(), 0
    assert box.stdout is not None
    with selectors.DefaultSelector() as waiting:
        waiting.register(box.stdout, selectors.EVENT_READ)
        look = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= end:
                raise subprocess.TimeoutExpired("bwrap", end)
            if now >= look:
                _check(box.pid)
                look = time.monotonic() + EVERY
            if not waiting.select(min(EVERY, end - now)):
                continue
            piece = os.read(box.stdout.fileno(), 1 << 16)
            if not piece:
                return bytes(words)
            size += len(piece)
            words += piece[:MAX_WORDS - len(words)]
            if size > MAX_OUTPUT:
                raise CommandFailed(f"its command wrote more than {MAX_OUTPUT >> 20} MiB")


def _check(pid: int) -> None:
    """Raise CommandFailed when the processes below one are too many, or too large."""
    count, memory, pending = 0, 0, [pid]
    while pending:
        process = pending.pop()
        try:
            children = Path(f"/proc/{process}/task/{process}/children").read_text()
            pending += map(int, children.split())
            memory += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except (OSError, IndexError):  # it ended meanwhile
            continue
        count += 1
        if count > MAX_PROCESSES:
            raise CommandFailed(f"its command started more than {MAX_PROCESSES} processes")
    if memory * resource.getpagesize() > MAX_MEMORY:
        raise CommandFailed(f"its command took more than {MAX_MEMORY >> 20} MiB of memory")
