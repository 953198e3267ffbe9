"""Carries frames between a TAP device and two pipes, until one side ends."""

from __future__ import annotations

import os
import select
import time
from typing import NamedTuple

from walt.common.ethernet import MAX_FRAME, BadFrame, FrameDecoder, encode

READ = 65536  # bytes from the peer at once
FRAMES = 64  # from the device at once
MOST_WAITING = 256 * 1024  # bytes for a peer that does not read; the device drops the rest
LARGEST_READ = 2048  # one frame, with what makes it too long
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class End(NamedTuple):
    """Why a relay ended: `fault` when it should not have."""

    reason: str
    fault: bool


def relay(
    tap: int, incoming: int, outgoing: int, watched: int | None = None,
    until: float | None = None,
) -> End:
    """Carry frames until the peer closes its side, and say why it ended.

    All are descriptors. `watched`, a connection, ends it when it is closed; `until` is an
    epoch second.
    """
    for descriptor in (tap, incoming, outgoing):
        os.set_blocking(descriptor, False)
    return _Relay(tap, incoming, outgoing, watched, until).run()


class _Relay:
    def __init__(
        self, tap: int, incoming: int, outgoing: int, watched: int | None, until: float | None
    ) -> None:
        self._tap, self._incoming, self._outgoing = tap, incoming, outgoing
        self._watched, self._until = watched, until
        self._decoder = FrameDecoder()
        self._waiting = bytearray()

    def run(self) -> End:
        while True:
            poll, same = select.poll(), self._incoming == self._outgoing
            wanted = select.POLLOUT if self._waiting else 0
            poll.register(self._incoming, select.POLLIN | (wanted if same else 0))
            if not same:
                poll.register(self._outgoing, wanted)
            # A cable to somebody who does not listen: the kernel's queue fills, then it drops.
            full = len(self._waiting) >= MOST_WAITING
            if not full:
                poll.register(self._tap, select.POLLIN)
            if self._watched is not None:
                poll.register(self._watched, select.POLLIN)
            end = self._turns(poll, bool(wanted), full)
            if end is not None:
                return end

    def _turns(self, poll: select.poll, wanted: bool, full: bool) -> End | None:
        """Carry until something else must be looked at; return how it ended, if it did."""
        while True:
            for descriptor, event in poll.poll(self._patience()):
                if descriptor == self._watched:
                    end = self._from_server(descriptor)
                elif descriptor == self._tap:
                    end = self._from_tap(event)
                elif descriptor == self._incoming and event & (select.POLLIN | _GONE):
                    end = self._from_peer()
                else:
                    end = self._to_peer(event)
                if end is not None:
                    return end
            if self._until is not None and time.time() >= self._until:
                return End("the certificate has expired", True)
            if bool(self._waiting) != wanted or (len(self._waiting) >= MOST_WAITING) != full:
                return None

    def _patience(self) -> float | None:
        if self._until is None:
            return None
        return max(0.0, min(3600.0, self._until - time.time())) * 1000 + 1

    def _from_server(self, descriptor: int) -> End | None:
        try:
            if os.read(descriptor, READ):
                return None  # the rest of its greeting
        except BlockingIOError:
            return None
        except OSError:
            pass
        return End("the server has ended this tunnel", True)

    def _from_tap(self, event: int) -> End | None:
        if event & _GONE:
            return End("the network device is gone", True)
        waiting = self._waiting
        try:
            for _ in range(FRAMES):
                frame = os.read(self._tap, LARGEST_READ)
                if len(frame) <= MAX_FRAME:  # one with a VLAN tag has no place here
                    waiting += encode(frame)
        except BlockingIOError:
            pass
        except OSError as error:
            return End(f"the network device is gone: {error.strerror}", True)
        except BadFrame:
            pass
        return self._to_peer(0)

    def _to_peer(self, event: int) -> End | None:
        if event & _GONE:
            return End("the peer has left", False)
        try:
            if self._waiting:
                del self._waiting[:os.write(self._outgoing, self._waiting)]
        except BlockingIOError:
            pass
        except OSError:
            return End("the peer has left", False)
        return None

    def _from_peer(self) -> End | None:
        try:
            data = os.read(self._incoming, READ)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            return End("the peer has closed the tunnel", False)
        try:
            frames = self._decoder.feed(data)
        except BadFrame as error:
            return End(f"the peer sent no frames: {error}", True)
        for frame in frames:
            try:
                os.write(self._tap, frame)
            except BlockingIOError:
                continue  # as on a cable
            except OSError as error:
                return End(f"the network device is gone: {error.strerror}", True)
        return None
