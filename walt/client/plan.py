"""`--plan`: whom a command would disturb; nothing is done."""

from __future__ import annotations

import json
import sys

from walt.client.errors import PLANNED
from walt.client.grammar import Switch

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.session import Session

PLAN = Switch("--plan", "only tell whom this would disturb; status 3 if somebody")
# Beside --plan; a command that prints facts has one of its own.
PLAN_JSON = Switch("--json", "print JSON for programs, with --plan")
SWITCHES = [PLAN, PLAN_JSON]
REBOOT, REMOVED, LATER, NOTHING = "reboots", "is removed", "has to be rebooted", "goes on"


def tell_plan(
    session: Session, as_json: bool, effect: str = REBOOT, *, devices: str | None = None,
    image: str | None = None, settings: list[str] | None = None, nodes_only: bool = False,
    default_images: bool = False,
) -> int:
    """Print what would become of devices, and of the nodes that boot an image of the user.

    `default_images` stands for the images of the platform; `settings` are checked as if they
    were set. Returns 3 when somebody would be disturbed, else 0. Raises Refused.
    """
    answer = session.call(
        "cs.nodes.plan", devices=devices, image=image, settings=settings,
        nodes_only=nodes_only or None, default_images=default_images or None,
    )
    if settings is not None:
        effect = LATER if answer[b"reboot"] == b"True" else NOTHING
    rows: list[dict[str, Any]] = [
        {**row, "effect": effect, "disturbed": row["disturbed"] and effect != NOTHING}
        for row in json.loads(answer[b"rows"])
    ]
    if as_json:
        from walt.client.output import print_json

        print_json(rows)
    else:
        _tell(rows)
    return PLANNED if any(row["disturbed"] for row in rows) else 0


def planned(plan: bool, json: bool) -> bool:
    """Tell whether to plan instead of doing it. Raises Failure for --json without --plan."""
    if json and not plan:
        from walt.client.errors import WRONG_WORDS, Failure

        raise Failure("--json goes with --plan here.", WRONG_WORDS)
    return plan


def _tell(rows: list[dict[str, Any]]) -> None:
    from walt.client.output import moment
    from walt.client.settings import username

    if not rows:
        print("No node would be touched.")
    for row in rows:
        owner = row["owner"]
        told = [
            "free" if owner is None else "yours" if owner == username() else f"{owner}'s",
            "booted" if row["booted"] else "not booted",
        ]
        if row["reserved_by"]:
            told.append(f"reserved by {row['reserved_by']} until {moment(row['reserved_until'])}")
        told += [
            f"{one['kind']} by {one['user']} since {moment(one['since'])}"
            for one in row["sessions"]
        ]
        print(f"{row['name']} {row['effect']}: {', '.join(told)}")
    sys.stdout.flush()
