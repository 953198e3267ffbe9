"""`--plan`: whom a command would disturb; nothing is done."""

from __future__ import annotations

import sys

from walt.client.errors import PLANNED
from walt.client.grammar import Switch
from walt.client.operations.plans import NOTHING, REBOOT, REMOVED, plan

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.session import Session

__all__ = ["NOTHING", "PLAN", "PLAN_JSON", "REBOOT", "REMOVED", "SWITCHES", "planned", "tell_plan"]

PLAN = Switch("--plan", "only tell whom this would disturb; status 3 if somebody")
# Beside --plan; a command that prints facts has one of its own.
PLAN_JSON = Switch("--json", "print JSON for programs, with --plan")
SWITCHES = [PLAN, PLAN_JSON]


def tell_plan(session: Session, as_json: bool, effect: str = REBOOT, **what: Any) -> int:
    """Print a plan, which `walt.client.operations.plans` makes of `what`.

    Returns 3 when somebody would be disturbed, else 0. Raises Refused.
    """
    rows = plan(session, effect, **what)
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
    from walt.client.formats import moment
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
            f"{session['kind']} by {session['user']} since {moment(session['since'])}"
            for session in row["sessions"]
        ]
        print(f"{row['name']} {row['effect']}: {', '.join(told)}")
    sys.stdout.flush()
