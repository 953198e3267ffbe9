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
    rows = [line(one) for one in found]
    if rows:
        print(table(COLUMNS, rows))
    else:
        print("Nothing was changed since then.")


def line(one: dict[str, Any]) -> dict[str, str]:
    """Return a change as a row of the table."""
    what, longest = one["kind"], ID if one["kind"] == "stored-image" else WIDEST
    if what in ("setting", "stored-image"):
        what = f"{what} {one['item']}"
    elif what == "link":
        what = f"link to {one['item']}"
    return {
        "time": moment(one["time"]),
        "who": one["who"] or "(platform)", "device": one["name"] or one["mac"] or "",
        "what": what, "before": _cut(one["before"], longest), "after": _cut(one["after"], longest),
    }


def _cut(value: str | None, longest: int) -> str:
    text = "" if value is None else value
    return text if len(text) <= longest else f"{text[:longest]}…"
