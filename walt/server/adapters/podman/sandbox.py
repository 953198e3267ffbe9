"""Commands of an image, run in its tree without a way out: blocking code for workers.

bubblewrap gives them a root directory that was pivoted to, namespaces of their own (users,
processes, network…), and takes every capability. A plain chroot(2) with the
server's rights would be left by any program that knows how.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.podman.imageroot import ImageRoot

LIMITS = (
    f"--as={1 << 30}",  # bytes of address space, each process
    f"--fsize={1 << 30}",  # bytes of a file
    "--nproc=4096", "--core=0",
)
SYSTEM = ("/proc", "/dev")  # what bubblewrap mounts: it follows links to get there
USERS = Path("/proc/sys/user/max_user_namespaces")  # user_namespaces(7)
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def command(tree: Path, shell_command: str) -> list[str]:
    """Return the vector that runs a command of the shell in an image's tree."""
    users = ["--unshare-user", "--disable-userns"] if _has_user_namespaces() else []
    # Settings of the kernel ask who owns a file, not for capabilities: read-only they are.
    system = [word for path in SYSTEM for word in (f"--{path[1:]}", path, "--remount-ro", path)]
    return [
        "prlimit", *LIMITS, "--", "bwrap", "--unshare-all", *users, "--die-with-parent",
        "--new-session", "--cap-drop", "ALL", "--clearenv", "--setenv", "PATH", PATH,
        "--bind", str(tree), "/", *system, "--chdir", "/", "--", "/bin/sh", "-c", shell_command,
    ]


def _has_user_namespaces() -> bool:
    try:
        return int(USERS.read_text()) > 0
    except (OSError, ValueError):
        return False


def run(tree: Path, shell_command: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command of the shell in an image's tree; see `command`.

    Raises CommandFailed when it does not end within `timeout` seconds, or when the tree is
    not one to run things in, Unavailable without bubblewrap.
    """
    with ImageRoot(tree) as root:
        for path in SYSTEM:
            if root.kind(path) is None:
                with root.directory(path, create=True):
                    pass
            elif root.kind(path) != "directory":
                raise CommandFailed(f"{path} of the image is not a directory")
    try:
        return subprocess.run(
            command(tree, shell_command), capture_output=True, text=True, errors="replace",
            timeout=timeout, stdin=subprocess.DEVNULL, check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"its command did not end within {timeout:g} s") from None
    except FileNotFoundError:
        raise Unavailable("bubblewrap is missing; run: apt-get install bubblewrap") from None
