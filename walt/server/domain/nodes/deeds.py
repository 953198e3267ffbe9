"""What people do on nodes of others, in the log of the platform."""

from __future__ import annotations

from walt.server.domain.devices.model import Device
from walt.server.domain.logs.lines import PlatformLog


def note_on_others(platform: PlatformLog, node: Device, deed: str, user: str) -> None:
    """Log a deed on a node that belongs to another user; on free and own ones it is daily work."""
    if not node.is_free and node.owner != user:
        platform.deed("nodes", f"node {node.name} of {node.owner}", deed, user)
