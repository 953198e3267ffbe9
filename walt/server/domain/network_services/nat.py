"""Which devices may leave walt-net (spec server §3.8)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from walt.server.domain.devices.model import NETSETUP_NAT, Device


def nat_addresses(devices: Iterable[Device], subnet: IPv4Network) -> tuple[str, ...]:
    """Return the addresses of the NAT devices of walt-net, the server excepted."""
    return tuple(sorted(
        device.ip for device in devices
        if device.ip is not None and device.netsetup == NETSETUP_NAT
        and device.type != "server" and device.in_network(subnet)
    ))
