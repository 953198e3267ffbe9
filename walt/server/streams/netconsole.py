"""Kernel messages of nodes, UDP 12342 (spec node-protocols §6.3.3)."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol

from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.lines import LogService
from walt.server.domain.logs.model import clean_text
from walt.server.streams.kernel_messages import KernelMessages

STREAM = "netconsole"
PATIENCE = 2.0  # seconds to wait for the rest of a message


class Netconsole(DatagramProtocol):
    """One line of the stream `netconsole` for each line received.

    A message whose end does not come (a kernel that died in the middle) is logged as it is
    after a while. Senders of datagrams cannot be asked to wait: what comes while the database
    is late is dropped, and counted in a line.
    """

    def __init__(self, registry: DeviceRegistry, logs: LogService, clock: IReactorTime) -> None:
        self._registry = registry
        self._logs = logs
        self._clock = clock
        self._kernels: dict[str, KernelMessages] = {}
        self._timers: dict[str, Any] = {}
        self._dropped: dict[str, int] = {}

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        device = self._registry.by_ip(addr[0])
        if device is None:
            return
        mac = device.mac
        if self._logs.must_wait(mac):
            self._dropped[mac] = self._dropped.get(mac, 0) + 1
            return
        dropped = self._dropped.pop(mac, 0)
        if dropped:
            self._write(mac, [b"<%d datagrams dropped!>" % dropped])
        kernel = self._kernels.setdefault(mac, KernelMessages())
        self._write(mac, kernel.feed(datagram))
        self._forget_timer(mac)
        if kernel.waiting:
            self._timers[mac] = self._clock.callLater(PATIENCE, self._late, mac)
        else:
            del self._kernels[mac]

    def _late(self, mac: str) -> None:
        del self._timers[mac]
        kernel = self._kernels.pop(mac)
        if self._registry.get(mac) is not None:
            self._write(mac, kernel.rest())

    def _write(self, mac: str, lines: list[bytes]) -> None:
        if lines:
            self._logs.write_lines(mac, STREAM, "\n".join(map(clean_text, lines)))

    def _forget_timer(self, mac: str) -> None:
        timer = self._timers.pop(mac, None)
        if timer is not None:
            timer.cancel()

    def stopProtocol(self) -> None:
        """Log what waits for its end."""
        for mac in list(self._timers):
            self._timers[mac].cancel()
            self._late(mac)
