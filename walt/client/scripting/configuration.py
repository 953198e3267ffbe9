"""`node.config`: settings as attributes that can be written (spec user-surface §2.3)."""

from __future__ import annotations

import sys

from walt.client.errors import Refused
from walt.client.scripting.link import LINK
from walt.client.scripting.texts import Shown, attributes, block, short
from walt.common.controls import visible

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from walt.client.scripting.nodes import Node


class NodeConfiguration(Shown):
    """The settings of one node, dots written as underscores; read and written on the server."""

    _title = "node configuration"

    def __init__(self, node: Node) -> None:
        object.__setattr__(self, "_node", node)

    def _settings(self) -> dict[str, object]:
        node: Node = object.__getattribute__(self, "_node")
        groups = LINK.json(
            "cs.devices.config", "groups", [{"settings": {}}],
            devices=node._names(), nodes_only=True,
        )
        return {name: value for group in groups for name, value in group["settings"].items()}

    def _values(self) -> dict[str, object]:
        return {name.replace(".", "_"): value for name, value in self._settings().items()}

    def __getattr__(self, name: str) -> object:
        values = {} if name.startswith("_") else self._values()
        if name not in values:
            raise AttributeError(f"this node has no setting {name!r}")
        return values[name]

    def __setattr__(self, name: str, value: object) -> None:
        names = {setting.replace(".", "_"): setting for setting in self._settings()}
        if name not in names:
            raise AttributeError(f"this node has no setting {name!r}")
        text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
        node: Node = object.__getattribute__(self, "_node")
        try:
            LINK.call(
                "cs.devices.set_config", devices=node._names(), settings=[f"{names[name]}={text}"],
                nodes_only=True,
            )
        except Refused as refused:
            print(visible(str(refused)), file=sys.stderr)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values()]

    def __repr__(self) -> str:
        values = {name: short(value) for name, value in self._values().items()}
        return block(self._title, [("writable attributes", attributes(values))])
