"""Delay and limit what a virtual machine receives, where the kernel cannot (no netem).

    python -m walt.server.tools.frame_relay TAP LATENCY_US BANDWIDTH

Frames go from the tap to descriptor 3, a stream socket whose other end is QEMU's
(`-netdev stream`: each frame behind its length, 4 bytes, big endian), at the time a
`DelayLine` says; what the machine sends goes to the tap at once. Ends with the machine.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from walt.common.traffic_shaping import DelayLine, Limits
from walt.server.runtime.producing import Gate
from walt.server.runtime.reactors import IReactor, the_reactor

MACHINE = 3  # descriptor of the socket
FRAMES_A_TURN = 64  # read from the tap before the reactor looks elsewhere
MAX_FRAME = 65_550
# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


class Tap(FileDescriptor):
    """The kernel's side: an existing tap, frames in and out."""

    def __init__(self, name: str, reactor: IReactor, received: Callable[[bytes], None]) -> None:
        super().__init__(reactor)
        self._received = received
        self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI)
        fcntl.ioctl(self._fd, TUNSETIFF, request)
        self.connected = True
        self.startReading()

    def fileno(self) -> int:
        """The descriptor of the tap."""
        return self._fd

    def doRead(self) -> None:
        """Hand over what has arrived."""
        for _ in range(FRAMES_A_TURN):
            try:
                self._received(os.read(self._fd, MAX_FRAME))
            except BlockingIOError:
                return

    def send(self, frame: bytes) -> None:
        """Give a frame to the network; like a cable, drop it where it cannot pass."""
        try:
            os.write(self._fd, frame)
        except OSError:
            return


class Relay(Int32StringReceiver):
    """The machine's side, and the frames on their way to it."""

    MAX_LENGTH = MAX_FRAME
    transport: Any

    def __init__(self, tap_name: str, limits: Limits, reactor: IReactor) -> None:
        self._tap_name = tap_name
        self._reactor = reactor
        self._line = DelayLine(limits)
        self._queue: deque[tuple[float, bytes]] = deque()
        self._waiting = 0
        self._timer: Any = None
        self._gate = Gate()  # closed while the machine does not read

    def connectionMade(self) -> None:
        self.transport.registerProducer(self._gate, True)
        self._tap = Tap(self._tap_name, self._reactor, self.from_network)

    def stringReceived(self, string: bytes) -> None:
        self._tap.send(string)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._reactor.stop()

    def from_network(self, frame: bytes) -> None:
        """Accept a frame for the machine, to be sent when its time has come."""
        leaves = self._line.departure(self._reactor.seconds(), len(frame), self._waiting)
        if leaves is not None:
            self._queue.append((leaves, frame))
            self._waiting += len(frame)
            self._plan()

    def _plan(self) -> None:
        if self._timer is None and self._queue:
            wait = max(0.0, self._queue[0][0] - self._reactor.seconds())
            self._timer = self._reactor.callLater(wait, self._send_due)

    def _send_due(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        while self._queue and self._queue[0][0] <= now:
            _, frame = self._queue.popleft()
            self._waiting -= len(frame)
            if not self._gate.closed:  # else it is dropped
                self.sendString(frame)
        self._plan()


def main() -> None:
    """Relay until the machine ends."""
    tap, latency, bandwidth = sys.argv[1:4]
    run(tap, Limits(int(latency), int(bandwidth)), the_reactor())


def run(tap: str, limits: Limits, reactor: IReactor) -> None:
    """Run the reactor with one relay in it, until the machine ends."""
    try:
        # Opening a tap that is gone would make a new one.
        socket.if_nametoindex(tap)
    except OSError:
        return  # the machine has ended meanwhile
    relay = Relay(tap, limits, reactor)
    os.set_blocking(MACHINE, False)
    reactor.adoptStreamConnection(
        MACHINE, socket.AF_UNIX, cast("ServerFactory", ServerFactory.forProtocol(lambda: relay))
    )
    os.close(MACHINE)
    reactor.run()


if __name__ == "__main__":
    main()
