"""Which networks virtual nodes have besides walt-net (spec server §3.7, `networks`)."""

from __future__ import annotations

from collections.abc import Iterable

from walt.common.errors import Invalid
from walt.common.machines import BOOT_NETWORK, parse_networks
from walt.server.domain.devices.model import Device


def secondary_networks(devices: Iterable[Device]) -> tuple[str, ...]:
    """Return the names of the secondary networks, sorted."""
    return tuple(sorted({
        name
        for device in devices if device.virtual and "networks" in device.conf
        for name in _names(str(device.conf["networks"])) if name != BOOT_NETWORK
    }))


def _names(text: str) -> list[str]:
    try:
        return [network.network for network in parse_networks(text)]
    except Invalid:
        # A value of another version in the database: that node tells so when it starts.
        return []
