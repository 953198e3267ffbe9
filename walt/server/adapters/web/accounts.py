"""Whose the other end of a connection of the loopback is, as the kernel tells (sock_diag(7))."""

from __future__ import annotations

import errno
import itertools
import socket
import struct

from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import in_words
from walt.server.domain.access.interfaces import IPeerAccounts

_log = Logger()

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1
_ESTABLISHED = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_WANTED = struct.Struct("=BBBxI")  # inet_diag_req_v2: family, protocol, extensions, states
_ENDS = struct.Struct("!HH4s12x4s12x")  # inet_diag_sockid: ports and addresses of both ends
_ANY = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # its interface; INET_DIAG_NOCOOKIE
_FOUND = struct.Struct("=BB2x48x12xII")  # inet_diag_msg: family, state, …, uid, inode
_LOOPBACK = socket.inet_aton("127.0.0.1")
_TRIES = 8  # answers to former questions that may lie there


@implementer(IPeerAccounts)
class LoopbackAccounts:
    """Asks about the network in which it was made, wherever the process goes later."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kernel: socket.socket | None = None
        try:
            self._kernel = socket.socket(
                socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG
            )
        except OSError as error:
            self._tell(error)

    def uid_of(self, port: int, own_port: int) -> int | None:
        number = next(self._numbers) & 0xFFFFFFFF
        question = (
            _WANTED.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
            + _ENDS.pack(port, own_port, _LOOPBACK, _LOOPBACK) + _ANY
        )
        header = _HEADER.pack(
            _HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, number, 0
        )
        if self._kernel is None:
            return None
        try:
            # The kernel answers within the call: nothing is waited for.
            self._kernel.sendto(header + question, (0, 0))
            for _ in range(_TRIES):
                answer = self._kernel.recv(4096)
                _, kind, _, of, _ = _HEADER.unpack_from(answer)
                if of == number:
                    return _uid(answer) if kind == _SOCK_DIAG_BY_FAMILY else None
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self._tell(error)
        return None

    def _tell(self, error: OSError) -> None:
        _log.warn(
            "whose browsers of this machine are is not known: {error}", error=in_words(error)
        )


def _uid(answer: bytes) -> int | None:
    """Return whose a socket is; one that was closed is nobody's, and the kernel says root's."""
    _, state, uid, inode = _FOUND.unpack_from(answer, _HEADER.size)
    return int(uid) if state == _ESTABLISHED and inode != 0 else None
