"""Named moments of the logs (spec user-surface §1.4, §1.9)."""

from __future__ import annotations

from datetime import datetime

from walt.client.errors import WRONG_WORDS, Failure
from walt.client.operations.history import seconds

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.client.calls import Calls

DATE = "%Y-%m-%d %H:%M:%S"


def add(calls: Calls, name: str, date: str | None) -> float:
    """Name a moment: now, or a date of this machine, or a time ago. Return its epoch seconds.

    Raises Failure for what is no date.
    """
    moment = None if date is None else _moment(calls, date)
    return float(calls.call("cs.logs.add_checkpoint", name=name, time=moment)[b"time"])


def _moment(calls: Calls, date: str) -> float:
    if date.startswith("-"):
        return float(calls.call("cs.server.time")[b"time"]) - seconds(date)
    try:
        return datetime.strptime(date, DATE).timestamp()
    except (ValueError, OverflowError, OSError):
        example = datetime.now().strftime(DATE)
        raise Failure(
            f"{date!r} is not a date; write it as YYYY-MM-DD hh:mm:ss, for example '{example}'",
            WRONG_WORDS,
        ) from None


def remove(calls: Calls, name: str) -> None:
    """Forget a moment."""
    calls.call("cs.logs.remove_checkpoint", name=name)


def checkpoints(calls: Calls) -> list[tuple[float, str]]:
    """Return the moments of the user, in epoch seconds, with their names."""
    found: list[tuple[float, str]] = calls.json("cs.logs.list_checkpoints", "checkpoints")
    return found
