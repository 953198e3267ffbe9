"""`walt device changes`: what was changed, when, by whom."""

from __future__ import annotations

from walt.client.formats import moment
from walt.client.operations.changes import changes, moment_of
from walt.client.session import Session
from walt.client.terminal import Terminal, table

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

COLUMNS = ["time", "who", "device", "what", "before", "after"]
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
    rows = [line(change) for change in found]
    if rows:
        print(table(COLUMNS, rows))
    else:
        print("Nothing was changed since then.")


def line(change: dict[str, Any]) -> dict[str, str]:
    """Return a change as a row of the table."""
    what, longest = change["kind"], ID if change["kind"] == "stored-image" else WIDEST
    if what in ("setting", "stored-image"):
        what = f"{what} {change['item']}"
    elif what == "link":
        what = f"link to {change['item']}"
    return {
        "time": moment(change["time"]),
        "who": change["who"] or "(platform)", "device": change["name"] or change["mac"] or "",
        "what": what, "before": _cut(change["before"], longest),
        "after": _cut(change["after"], longest),
    }


def _cut(value: str | None, longest: int) -> str:
    text = "" if value is None else value
    return text if len(text) <= longest else f"{text[:longest]}…"
