"""Values that the server writes into images (spec node-protocols §4.3)."""

from __future__ import annotations
from typing import NamedTuple

from collections.abc import Callable

from walt.common import ports


class Facts(NamedTuple):
    """What every mounted image is told of the platform.

    `server_mac` returns the MAC of walt-net on the server, `key` the server's public ssh
    key in one line: both are known when an image is mounted, not earlier. `grace` is
    `boot.reconnect-grace` in seconds (design D20).
    """

    server_ip: str
    server_mac: Callable[[], str]
    key: Callable[[], str]
    grace: int = 180

    def template_values(self) -> dict[str, str]:
        """Return the values of templates that do not depend on the image."""
        return {
            "server_ip": self.server_ip,
            "server_mac": self.server_mac(),
            "walt_server_rpc_port": str(ports.RPC),
            "walt_server_logs_port": str(ports.STREAMS),
            "walt_server_notify_bootup_port": str(ports.STREAMS),
            "walt_node_net_service_port": str(ports.NODE_SERVICE),
            "walt_reconnect_grace": str(self.grace),
        }

    def authorized_key(self) -> str:
        """Return the key that nodes accept for root."""
        return self.key()
