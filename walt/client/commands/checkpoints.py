"""What `walt log add-checkpoint` and its siblings print (spec user-surface §1.4, §1.9)."""

from __future__ import annotations

from walt.client.formats import moment
from walt.client.operations import checkpoints
from walt.client.session import Session
from walt.client.terminal import Terminal, table


def add(name: str, date: str | None) -> int:
    """Name a moment: now, or a date."""
    added = checkpoints.add(Session(Terminal()), name, date)
    print(f"Checkpoint {name} was added at {moment(added)}.")
    return 0


def remove(name: str) -> int:
    """Forget a moment."""
    checkpoints.remove(Session(Terminal()), name)
    print("Done.")
    return 0


def show(json: bool) -> int:
    """Print the moments of the user."""
    found = checkpoints.checkpoints(Session(Terminal()))
    if json:
        from walt.client.output import print_json

        print_json([{"name": name, "time": seconds} for seconds, name in found])
        return 0
    if not found:
        print("You have no checkpoint. Add one: walt log add-checkpoint <name>")
        return 0
    rows = [{"timestamp": moment(seconds), "name": name} for seconds, name in found]
    print(table(["timestamp", "name"], rows))
    return 0
