"""A network namespace for the time that this machine speaks as its node.

There the node's address disturbs nothing: this machine may have addresses of its own on
walt-net, and must not answer ARP for the node once that runs.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from walt.common.errors import CommandFailed

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_OWN = "/proc/self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise CommandFailed(f"network namespace: {os.strerror(ctypes.get_errno())}")


class Namespace:
    """Gone, with all that is in it, when it is closed or this process ends.

    Raises CommandFailed where the kernel refuses.
    """

    def __init__(self) -> None:
        with self._coming_back():
            _check(_libc.unshare(_CLONE_NEWNET))
            self._descriptor = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)

    @staticmethod
    @contextmanager
    def _coming_back() -> Iterator[None]:
        with open(_OWN, "rb") as here:
            try:
                yield
            finally:
                _check(_libc.setns(here.fileno(), _CLONE_NEWNET))

    @property
    def path(self) -> str:
        """The file that stands for it, for other programs."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def command(self, *argv: str) -> Sequence[str]:
        """Return the vector that runs a program inside."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def socket(self) -> socket.socket:
        """Return a TCP socket that lives inside."""
        with self._coming_back():
            _check(_libc.setns(self._descriptor, _CLONE_NEWNET))
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def close(self) -> None:
        """Leave it to the kernel."""
        os.close(self._descriptor)
