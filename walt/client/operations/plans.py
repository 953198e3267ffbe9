"""Whom a command would disturb; nothing is done."""

from __future__ import annotations

import json

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.calls import Calls

REBOOT, REMOVED, LATER, NOTHING = "reboots", "is removed", "has to be rebooted", "goes on"


def plan(
    calls: Calls, effect: str = REBOOT, *, devices: str | None = None, image: str | None = None,
    settings: list[str] | None = None, nodes_only: bool = False, default_images: bool = False,
) -> list[dict[str, Any]]:
    """Return what would become of devices, and of the nodes that boot an image of the user.

    `default_images` stands for the images of the platform; `settings` are checked as if they
    were set. A row for each node, `disturbed` when somebody would be. Raises Refused.
    """
    answer = calls.call(
        "cs.nodes.plan", devices=devices, image=image, settings=settings,
        nodes_only=nodes_only or None, default_images=default_images or None,
    )
    if settings is not None:
        effect = LATER if answer[b"reboot"] == b"True" else NOTHING
    return [
        {**row, "effect": effect, "disturbed": row["disturbed"] and effect != NOTHING}
        for row in json.loads(answer[b"rows"])
    ]
