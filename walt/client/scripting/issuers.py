"""The objects that log lines come from."""

from __future__ import annotations

from walt.client.errors import Refused
from walt.client.scripting.link import LINK
from walt.client.scripting.nodes import Node, node_of
from walt.client.scripting.server import Server


class Issuers(dict[str, "Node | Server | str"]):
    """By name; a device that is gone, whose lines were kept, is its name."""

    def __missing__(self, name: str) -> Node | Server | str:
        found: Node | Server | str = name
        try:
            record = LINK.json("cs.devices.get", "device", name=name)
        except Refused:
            pass
        else:
            if record["type"] == "server":
                found = Server(record, LINK.server_version)
            elif record["type"] == "node":
                found = node_of(record)
        self[name] = found
        return found
