"""The objects that log lines come from."""

from __future__ import annotations

from walt.client.errors import Refused
from walt.client.scripting.link import LINK
from walt.client.scripting.server import Server

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Issuers(dict[str, object]):
    """By name; `node_of` gives the object of a node's record.

    A device that is gone, whose lines were kept, is its name.
    """

    def __init__(self, node_of: Callable[[dict[str, Any]], object]) -> None:
        super().__init__()
        self._node_of = node_of

    def __missing__(self, name: str) -> object:
        found: object = name
        try:
            record = LINK.json("cs.devices.get", "device", {"type": str, "name": str}, name=name)
        except Refused:
            pass
        else:
            if record["type"] == "server":
                found = Server(record, LINK.server_version)
            elif record["type"] == "node":
                found = self._node_of(record)
        self[name] = found
        return found
