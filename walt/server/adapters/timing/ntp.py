"""NTP for walt-net: the machine's own daemon where it has one, else answers of ours.

A machine with chrony or ntpsec serves walt-net by it. One with systemd-timesyncd, or with nothing,
serves nobody: then the server itself answers clients, from the clock of the machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common.errors import in_words
from walt.server.domain.network_services.timing import (
    NTP_PORT,
    ClockState,
    is_ntp_answer,
    ntp_answer,
    ntp_question,
)
from walt.server.runtime.asking import Address, Place, ask_datagram
from walt.server.runtime.foreign import Foreign
from walt.server.runtime.kept import Health
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import NoAnswer

_log = Logger()

NAME = "ntp"
EVERY, LIMIT = 15.0, 3.0  # seconds between questions, and until an answer is missing
LONGEST = 512  # bytes of a question that are taken
AT_ONCE = 64  # questions in one turn
SO_TIMESTAMPNS = 35  # asm-generic/socket.h: the kernel says when a datagram came
_TIMESPEC = struct.Struct("@qq")


@implementer(IReadDescriptor)
class NtpPort:
    """A socket that answers clients of `subnet`; others get nothing."""

    def __init__(
        self, endpoint: socket.socket, subnet: IPv4Network, clock: Callable[[], ClockState],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._socket, self._subnet = endpoint, subnet
        self._clock, self._now = clock, now
        endpoint.setblocking(False)
        endpoint.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return a name for logs."""
        return NAME

    def connectionLost(self, reason: Failure) -> None:
        """Nothing to do: the service closes the socket."""

    def doRead(self) -> None:
        """Answer what has come, within limits."""
        for _ in range(AT_ONCE):
            try:
                data, control, _, sender = self._socket.recvmsg(LONGEST, 64)
            except OSError:
                return
            if IPv4Address(sender[0]) not in self._subnet:
                continue
            answer = ntp_answer(data, self._came(control), self._now(), self._clock())
            if answer is not None:
                with contextlib.suppress(OSError):  # its queue is full, or it is gone
                    self._socket.sendto(answer, sender)

    def _came(self, control: list[tuple[int, int, bytes]]) -> float:
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                return float(seconds + nanoseconds / 1e9)
        return self._now()


class NtpService(Foreign):
    """See the module. Sockets are opened in `place`."""

    def __init__(
        self, reactor: IReactor, *, server: IPv4Address, subnet: IPv4Network,
        clock: Callable[[], ClockState], port: int = NTP_PORT,
        place: Place = contextlib.nullcontext,
    ) -> None:
        super().__init__(reactor, NAME, EVERY, good=False)
        self._reactor, self._place = reactor, place
        self._address: Address = (str(server), port)
        self._subnet, self._clock = subnet, clock
        self._own: tuple[socket.socket, NtpPort] | None = None

    @property
    def health(self) -> Health:
        """Return whether clients get answers; with a pid where they are ours."""
        return self._health(pid=None if self._own is None else os.getpid())

    def stopService(self) -> None:
        """Answer no more."""
        super().stopService()
        self._close()

    async def _look(self) -> None:
        problem = await self._problem()
        if problem is not None and self._own is None and self.running:
            # Nobody serves: not yet, or not any more.
            problem = self._open() or await self._problem()
        if problem is None:
            self._works()
        elif self._fails(problem):
            _log.warn("clients of NTP get no answer: {problem}", problem=problem)

    async def _problem(self) -> str | None:
        """Ask as a client does; return what is wrong, None when somebody answers."""
        stamp = secrets.randbits(64)

        def accept(raw: bytes, sender: Address) -> bool | None:
            return is_ntp_answer(raw, stamp) or None

        asking = Deferred.fromCoroutine(ask_datagram(
            self._reactor, lambda sending: sending.send(ntp_question(stamp)), accept,
            peer=self._address, place=self._place,
        ))
        try:
            await asking.addTimeout(LIMIT, self._reactor)
        except TimeoutError:
            return f"no answer within {LIMIT:g} s"
        except (NoAnswer, OSError) as error:
            return in_words(error)
        return None

    def _open(self) -> str | None:
        """Begin to answer; return why that cannot be, if so."""
        with self._place():
            endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # A daemon of the machine that is started later is not kept from its addresses.
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            endpoint.bind(self._address)
        except OSError as error:
            endpoint.close()
            return f"port {self._address[1]} of {self._address[0]}: {error.strerror}"
        port = NtpPort(endpoint, self._subnet, self._clock)
        self._reactor.addReader(port)
        self._own = endpoint, port
        return None

    def _close(self) -> None:
        if self._own is not None:
            endpoint, port = self._own
            self._own = None
            self._reactor.removeReader(port)
            endpoint.close()
