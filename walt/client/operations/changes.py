"""The record of what was changed, when, by whom."""

from __future__ import annotations

from datetime import datetime

from walt.client.errors import WRONG_WORDS, Failure, Refused
from walt.client.operations.history import seconds

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from walt.client.calls import Calls

PAGE = 1000  # changes of one answer
DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S")


def moment_of(calls: Calls, text: str) -> float:
    """Return epoch seconds of `-5m`, of a date of this machine, or of a checkpoint of the user.

    Raises Failure.
    """
    if text.startswith("-"):
        return float(calls.call("cs.server.time")[b"time"]) - seconds(text)
    for form in DATES:
        try:
            return max(0.0, datetime.strptime(text, form).timestamp())
        except (ValueError, OverflowError, OSError):
            continue
    try:
        return float(calls.call("cs.logs.checkpoint_time", name=text)[b"time"])
    except Refused as error:
        raise Failure(
            f"{error}. --since takes a date as 2026-11-29 or '2026-11-29 17:00', a time ago as -2h,"
            " or a checkpoint.", WRONG_WORDS,
        ) from None


def changes(calls: Calls, moment: float) -> Iterator[dict[str, Any]]:
    """Yield all changes since a moment, the oldest first."""
    after = 0
    while True:
        page = calls.json("cs.devices.changes", "changes", since=moment, after=after)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1]["id"]
