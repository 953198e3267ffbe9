"""Whether a command may disturb others: their names, and the question."""

from __future__ import annotations

import sys

from walt.client.operations.nodes import ownership, warnings
from walt.client.terminal import confirm

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.client.operations.nodes import Ownership
    from walt.client.session import Session


def may_disturb(session: Session, node_set: str, others_pass: bool = False) -> bool:
    """Check ownership: nodes of others, or reserved by others, need a confirmation.

    `others_pass`: switches and so on are accepted beside nodes.
    """
    return confirmed(ownership(session, node_set, others_pass=others_pass))


def confirmed(whose: Ownership) -> bool:
    """Say whom this may disturb, and ask whether to go on; True at once when it is nobody."""
    told = warnings(whose)
    for warning in told:
        print(f"Warning: {warning}", file=sys.stderr)
    return not told or confirm()
