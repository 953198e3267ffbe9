"""Kernel messages of nodes, UDP 12342 (spec node-protocols §6.3.3)."""

from __future__ import annotations

from twisted.internet.protocol import DatagramProtocol

from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.model import clean_text
from walt.server.domain.logs.service import LogService

MAX_PARTIAL = 64 * 1024


class Netconsole(DatagramProtocol):
    """One line of the stream `netconsole` for each line received."""

    def __init__(self, registry: DeviceRegistry, logs: LogService) -> None:
        self._registry = registry
        self._logs = logs
        self._partial: dict[str, bytes] = {}

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        device = self._registry.by_ip(addr[0])
        if device is None:
            return
        *lines, rest = (self._partial.pop(device.mac, b"") + datagram).split(b"\n")
        if len(rest) > MAX_PARTIAL:
            lines, rest = [*lines, rest], b""
        if rest:
            self._partial[device.mac] = rest
        for line in lines:
            self._logs.write(device.mac, "netconsole", clean_text(line))
