"""`walt device`."""

from __future__ import annotations

from walt.client.grammar import Command, Switch
from walt.client.session import Session
from walt.client.terminal import Terminal, print_block
from walt.common.tables import render_table, without_empty_columns

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

COLUMNS = ["name", "ip", "mac", "type", "netsetup"]


def show(json: bool) -> None:
    """Print every device."""
    tables = Session(Terminal()).json("cs.devices.show", "tables")
    if json:
        from walt.client.output import print_json

        print_json(tables)
        return
    _print("The network has the following devices:", tables["known"])
    if tables["unknown"]:
        _print(
            "Devices of unknown type:", tables["unknown"],
            "A board stays here until the server has the default image of its model.",
        )


def _print(title: str, rows: list[dict[str, Any]], footnote: str | None = None) -> None:
    print_block(title, render_table(without_empty_columns(COLUMNS, rows), rows), footnote)


JSON = Switch("--json", "print JSON for programs")

COMMANDS = {"show": Command(show, "print the devices of the platform", switches=[JSON])}
