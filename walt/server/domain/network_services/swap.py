"""The configuration of the swap service: a comparable value (spec node-protocols §4.12)."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import NamedTuple

from walt.common.ports import NBD

RESERVE = 1 << 30  # bytes of the server's disk that swap areas never take


class SwapConfig(NamedTuple):
    """Where the service listens, and the free disk space in bytes that it leaves alone."""

    server: IPv4Address
    port: int = NBD
    reserve: int = RESERVE
