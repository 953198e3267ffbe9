"""Records of boots, as rows (`walt help show json` tells what is in them)."""

from __future__ import annotations

from collections import namedtuple

from walt.client.answers import NULL, NUMBER
from walt.client.operations.boots import STAGES, elapsed, last_boots
from walt.client.operations.nodes import expand
from walt.client.scripting.columns import Frame
from walt.client.scripting.link import LINK

COLUMNS = {
    "node": "word", "mac": "word", "image": "word", "digest": "word", "cause": "word",
    "tries": "whole", "outcome": "word", "reason": "text", "stage": "word", "asked": "moment",
    **dict.fromkeys(STAGES, "moment"), "seconds": "number",
}
# What is read of an answer: `seconds` is worked out here.
READ = {
    name: {"moment": (*NUMBER, NULL), "whole": int}.get(kind, (str, NULL))
    for name, kind in COLUMNS.items() if name != "seconds"
}
Boot = namedtuple("Boot", list(COLUMNS))  # type: ignore[misc]


def boots_of(nodes: str, last: int) -> Frame:
    """Return the last boots of each of these nodes, oldest first.

    Moments are epoch seconds; `seconds` is how long the try took that succeeded, else None.
    Raises Refused.
    """
    found = last_boots(
        expand(LINK, nodes), last,
        lambda some: LINK.json("cs.nodes.boots", "boots", [READ], nodes=some, count=last),
    )
    return Frame(COLUMNS, [
        Boot._make({**boot, "seconds": elapsed(boot).get("ready")}[name] for name in COLUMNS)
        for boot in found
    ])
