"""`walt device changes`: what was changed, when, by whom."""

from __future__ import annotations

from datetime import datetime

from walt.client.errors import WRONG_WORDS, Failure, Refused
from walt.client.history import seconds
from walt.client.session import Session
from walt.client.terminal import Terminal, table

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PAGE = 1000  # changes of one answer
COLUMNS = ["time", "who", "device", "what", "before", "after"]
DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S")
WIDEST = 60  # characters of a value in the table
ID = 12  # of the id of an image


def show(since: str, json: bool) -> None:
    """Print the changes since a date, a checkpoint, or a time ago."""
    session = Session(Terminal())
    moment = moment_of(session, since)
    found = changes(session, moment)
    if json:
        from walt.client.output import print_json

        print_json(list(found))
        return
    rows = [line(one) for one in found]
    if rows:
        print(table(COLUMNS, rows))
    else:
        print("Nothing was changed since then.")


def moment_of(session: Session, text: str) -> float:
    """Return epoch seconds of `-5m`, of a date of this machine, or of a checkpoint of the user.

    Raises Failure.
    """
    if text.startswith("-"):
        return float(session.call("cs.server.time")[b"time"]) - seconds(text)
    for form in DATES:
        try:
            return max(0.0, datetime.strptime(text, form).timestamp())
        except (ValueError, OverflowError, OSError):
            continue
    try:
        return float(session.call("cs.logs.checkpoint_time", name=text)[b"time"])
    except Refused as error:
        raise Failure(
            f"{error}. --since takes a date as 2026-11-29 or '2026-11-29 17:00', a time ago as -2h,"
            " or a checkpoint.", WRONG_WORDS,
        ) from None


def changes(session: Session, moment: float) -> Iterator[dict[str, Any]]:
    """Yield all changes since a moment, the oldest first."""
    after = 0
    while True:
        page = session.json("cs.devices.changes", "changes", since=moment, after=after)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1]["id"]


def line(one: dict[str, Any]) -> dict[str, str]:
    """Return a change as a row of the table."""
    what, longest = one["kind"], ID if one["kind"] == "stored-image" else WIDEST
    if what in ("setting", "stored-image"):
        what = f"{what} {one['item']}"
    elif what == "link":
        what = f"link to {one['item']}"
    return {
        "time": datetime.fromtimestamp(one["time"]).strftime("%Y-%m-%d %H:%M:%S"),
        "who": one["who"] or "(platform)", "device": one["name"] or one["mac"] or "",
        "what": what, "before": _cut(one["before"], longest), "after": _cut(one["after"], longest),
    }


def _cut(value: str | None, longest: int) -> str:
    text = "" if value is None else value
    return text if len(text) <= longest else f"{text[:longest]}…"
