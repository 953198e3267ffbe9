"""Which nodes of walt-net are boards of the VPN (spec node-protocols §9.4)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from walt.server.domain.devices.model import Device


def board_addresses(devices: Iterable[Device], subnet: IPv4Network) -> tuple[str, ...]:
    """Return the addresses of enrolled boards, sorted."""
    return tuple(sorted(
        device.ip for device in devices
        if device.ip is not None and device.vpn_mac is not None and device.in_network(subnet)
    ))
