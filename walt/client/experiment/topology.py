"""Where the nodes of a run are in the network: the switches between each of them and the root.

Pure. A snapshot has, for each node, the devices above it, the nearest one first; devices of other
people are none of them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    # The devices above a node, the nearest first: name, mac, and port there.
    Ways = dict[str, list[dict[str, Any]]]

LONGEST_WAY = 64  # devices between a node and the root, of an archive that is read
WAY = {"name": str, "mac": str, "port": (str, type(None))}


def snapshot(branches: Sequence[Mapping[str, Any]], root: str, names: Collection[str]) -> Ways:
    """Return the ways from nodes to the root of a tree, whose lines are `cs.devices.tree`'s.

    Nodes that nobody has seen at a switch have an empty one.
    """
    known = {root: {"name": root, "mac": ""}}
    lines: dict[str, Mapping[str, Any]] = {}
    for branch in branches:
        if branch["kind"] not in ("back", "hidden"):
            known[branch["name"]] = {"name": branch["name"], "mac": branch["mac"]}
            lines.setdefault(branch["name"], branch)
    ways: Ways = {}
    for name in names:
        way: list[dict[str, Any]] = []
        at = lines.get(name)
        while at is not None and at["above"] in known and len(way) < len(lines):
            way.append({**known[at["above"]], "port": at["port"]})
            at = lines.get(at["above"])
        ways[name] = way
    return ways


def switches_between(ways: Ways, one: str, two: str) -> int | None:
    """Return how many switches a frame passes between two nodes, None if that is not known."""
    first = [device["name"] for device in ways.get(one, ())]
    second: dict[str, int] = {}
    for steps, device in enumerate(ways.get(two, ())):
        second.setdefault(device["name"], steps)
    for steps, name in enumerate(first):
        if name in second:
            return steps + second[name] + 1
    return None
