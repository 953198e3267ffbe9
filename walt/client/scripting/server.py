"""The server object (spec user-surface §2.6)."""

from __future__ import annotations

from walt.client.answers import NULL, senseless
from walt.client.scripting.link import LINK
from walt.client.scripting.objects import ApiObject

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from typing import Any


class Server(ApiObject):
    """The server of the platform."""

    _title = "walt server"

    def __init__(self, record: dict[str, Any], version: str) -> None:
        self._record = record
        self._version = version

    @property
    def device_type(self) -> str:
        """`server`."""
        return "server"

    @property
    def ip(self) -> str:
        """Its address in walt-net."""
        return str(self._record["ip"])

    @property
    def mac(self) -> str:
        """Its hardware address in walt-net."""
        return str(self._record["mac"])

    @property
    def walt_version(self) -> str:
        """The version of WalT that it runs."""
        return self._version


def server() -> Server:
    """Return the server."""
    tables = LINK.json("cs.devices.show", "tables", {
        "known": [{"type": str, "ip": (str, NULL), "mac": str}],
    })
    found = [row for row in tables["known"] if row["type"] == "server"]
    if not found:
        raise senseless("there is no server among its devices")
    row = found[0]
    return Server(row, LINK.server_version)
