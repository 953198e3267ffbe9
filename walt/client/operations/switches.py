"""The network as switches see it, and their ports (spec user-surface §1.11)."""

from __future__ import annotations

import json
from collections import namedtuple

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.calls import Calls


class Tree(namedtuple("Tree", ("root", "age", "branches"))):
    """The network from a device on: `age` is that of the last look in seconds, None without."""

    __slots__ = ()


def rescan(calls: Calls, device_set: str, quiet: bool = False) -> list[dict[str, Any]]:
    """Ask switches what they see; return how it went for each. `quiet`: nobody reads of it."""
    results: list[dict[str, Any]] = calls.json(
        "cs.devices.rescan", "results", devices=device_set, quiet=quiet
    )
    return results


def tree(calls: Calls, show_all: bool) -> Tree:
    """Return how devices are connected, with `show_all` also those without nodes behind them."""
    answer = calls.call("cs.devices.tree", all=show_all)
    age = float(answer[b"age"]) if b"age" in answer else None
    return Tree(answer[b"root"].decode(), age, json.loads(answer[b"branches"]))


def ports(calls: Calls, switch: str, port: str | None) -> list[dict[str, Any]]:
    """Return what is known of the ports of a switch, or of one of them."""
    found: list[dict[str, Any]] = calls.json(
        "cs.devices.ports", "ports", name=switch, port=port
    )
    return found


def set_port(calls: Calls, switch: str, port: str, words: list[str]) -> None:
    """Apply name=value words to a port."""
    calls.call("cs.devices.set_port", name=switch, port=port, settings=words)
