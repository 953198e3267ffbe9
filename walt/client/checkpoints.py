"""Named moments of the logs (spec user-surface §1.4, §1.9)."""

from __future__ import annotations

from datetime import datetime

from walt.client.errors import WRONG_WORDS, Failure
from walt.client.history import seconds
from walt.client.session import Session
from walt.client.terminal import Terminal, table

DATE = "%Y-%m-%d %H:%M:%S"


def add(name: str, date: str | None) -> int:
    """Name a moment: now, or a date."""
    session = Session(Terminal())
    moment = None if date is None else _moment(session, date)
    answer = session.call("cs.logs.add_checkpoint", name=name, time=moment)
    print(f"Checkpoint {name} was added at {_shown(float(answer[b'time']))}.")
    return 0


def _moment(session: Session, date: str) -> float:
    if date.startswith("-"):
        return float(session.call("cs.server.time")[b"time"]) - seconds(date)
    try:
        return datetime.strptime(date, DATE).timestamp()
    except (ValueError, OverflowError, OSError):
        example = datetime.now().strftime(DATE)
        raise Failure(
            f"{date!r} is not a date; write it as YYYY-MM-DD hh:mm:ss, for example '{example}'",
            WRONG_WORDS,
        ) from None


def _shown(moment: float) -> str:
    return datetime.fromtimestamp(moment).strftime(DATE)


def remove(name: str) -> int:
    """Forget a moment."""
    Session(Terminal()).call("cs.logs.remove_checkpoint", name=name)
    print("Done.")
    return 0


def show(json: bool) -> int:
    """Print the moments of the user."""
    found = Session(Terminal()).json("cs.logs.list_checkpoints", "checkpoints")
    if json:
        from walt.client.output import print_json

        print_json([{"name": name, "time": moment} for moment, name in found])
        return 0
    if not found:
        print("You have no checkpoint. Add one: walt log add-checkpoint <name>")
        return 0
    rows = [{"timestamp": _shown(moment), "name": name} for moment, name in found]
    print(table(["timestamp", "name"], rows))
    return 0
