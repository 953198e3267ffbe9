"""A network namespace of the platform's own (design D13).

The only module that calls setns(2) and unshare(2). They concern the calling
thread: use it in the main thread, before other threads exist.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from walt.common.errors import Conflict, Invalid, Unavailable
from walt.common.files import write_atomic
from walt.server.runtime.child import process_start, recorded_process

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 1 << 20
MNT_DETACH = 2
RUN_NETNS = Path("/run/netns")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise Unavailable(f"{what}: {os.strerror(code)} (the server must run as root)")


def _setns(descriptor: int) -> None:
    _check(_libc.setns(descriptor, CLONE_NEWNET), "entering a network namespace")


def _mount(source: str, target: str, flags: int) -> None:
    result = _libc.mount(
        source.encode(), target.encode(), b"none", ctypes.c_ulong(flags), None
    )
    _check(result, f"mounting {target}")


def _share(directory: str) -> None:
    """Make a directory a shared mount point, as ip-netns(8) does, unless it is one.

    Other mount namespaces then see the names. Only the kernel can tell whether
    it is a mount point already: os.path.ismount does not see bind mounts, and
    each further bind of a shared directory onto itself doubles its mounts.
    """
    flags = ctypes.c_ulong(MS_SHARED | MS_REC)
    if _libc.mount(b"none", directory.encode(), b"none", flags, None) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        _check(-1, f"sharing {directory}")
    _mount(directory, directory, MS_BIND | MS_REC)
    _mount("none", directory, MS_SHARED | MS_REC)


@contextlib.contextmanager
def inside(path: str | Path) -> Iterator[None]:
    """Be in the network namespace that the file `path` stands for, for a moment.

    A socket opened meanwhile stays in that namespace.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(here)
    finally:
        os.close(here)


class NetworkNamespace:
    """The namespace `name`, visible as /run/netns/NAME to `ip netns`.

    `marker` is a file of ours that says who made it: one that somebody else
    made, or that a living server uses, is never touched.
    """

    def __init__(self, name: str, marker: Path, directory: Path = RUN_NETNS) -> None:
        if _NAME.fullmatch(name) is None:
            raise Invalid(
                f"network.namespace: {name!r} is not a valid namespace name; "
                "use letters, digits, '-', '_' and '.'"
            )
        self._path = directory / name
        self._marker = marker
        self._host: int | None = None

    @property
    def path(self) -> Path:
        """The file that stands for the namespace."""
        return self._path

    @property
    def host_path(self) -> str:
        """A path of the host's namespace for other processes, valid while we live.

        It contains the pid: ask again after a fork.
        """
        if self._host is None:
            return f"/proc/{os.getpid()}/ns/net"
        return f"/proc/{os.getpid()}/fd/{self._host}"

    def create_and_enter(self) -> None:
        """Create the namespace and go into it; a left-over of ours is replaced.

        Raises Conflict when it belongs to somebody else, Unavailable when the
        kernel refuses.
        """
        self._remove_left_over()
        self._host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _check(_libc.unshare(CLONE_NEWNET), "creating a network namespace")
        try:
            self._publish()
        except BaseException:
            _setns(self._host)
            raise

    def mark(self) -> None:
        """Record the present process as the user of the namespace, after a fork."""
        self._marker.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._marker, f"{os.getpid()} {process_start(os.getpid())}\n")

    def enter(self) -> None:
        """Go back into the namespace after `leave`."""
        with open(self._path, "rb") as there:
            _setns(there.fileno())

    def leave(self) -> None:
        """Go back to the host's namespace."""
        if self._host is not None:
            _setns(self._host)

    @contextlib.contextmanager
    def host(self) -> Iterator[None]:
        """Be in the host's namespace for a moment: sockets opened meanwhile stay there."""
        with inside(self.host_path):
            yield

    def remove(self) -> None:
        """Leave the namespace and remove its name.

        Its interfaces disappear when the last process in it has ended.
        """
        self.leave()
        self._unpublish()
        if self._host is not None:
            os.close(self._host)
            self._host = None

    def _publish(self) -> None:
        directory = self._path.parent
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        _share(str(directory))
        self.mark()
        self._path.touch(mode=0o444)
        _mount("/proc/thread-self/ns/net", str(self._path), MS_BIND)

    def _remove_left_over(self) -> None:
        if not self._path.exists():
            return
        if not self._marker.exists():
            raise Conflict(
                f"the network namespace {self._path.name} exists already and is not ours: choose "
                f"another network.namespace, or run 'ip netns delete {self._path.name}'"
            )
        user = recorded_process(self._marker)
        if user is not None and user != os.getpid():
            raise Conflict(
                f"the network namespace {self._path.name} is used by process {user}: "
                "stop that server first, or choose another network.namespace"
            )
        self._unpublish()

    def _unpublish(self) -> None:
        _libc.umount2(str(self._path).encode(), MNT_DETACH)
        self._path.unlink(missing_ok=True)
        self._marker.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # The mount made by _share goes with its last name.
            if not any(self._path.parent.iterdir()):
                _libc.umount2(str(self._path.parent).encode(), MNT_DETACH)
