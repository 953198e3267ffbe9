"""What `walt node remove` and `walt device forget` share: the log lines at stake."""

from __future__ import annotations

import sys

from walt.client.errors import Refused
from walt.client.grammar import Switch
from walt.client.terminal import both_terminals, confirm

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.client.session import Session

KEEP_LOGS = "--keep-logs"
SWITCHES = [
    Switch("--force", "even when log lines are lost", excludes=(KEEP_LOGS,)),
    Switch(KEEP_LOGS, "keep its log lines, under its name"),
]


def forgotten(session: Session, call: str, name: str, force: bool, keep_logs: bool) -> bool:
    """Forget a device, after a confirmation when log lines would be lost; tell whether it is.

    Without terminals nobody can be asked: the refusal of the server tells what to do.
    """
    try:
        session.call(call, name=name, force=force, keep_logs=keep_logs)
    except Refused as refused:
        if refused.code != "CONFLICT" or not both_terminals():
            raise
        print(refused, file=sys.stderr)
        if not confirm():
            return False
        session.call(call, name=name, force=True, keep_logs=False)
    return True
