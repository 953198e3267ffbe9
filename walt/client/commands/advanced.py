"""`walt advanced`."""

from __future__ import annotations

from walt.client.grammar import Command, Switch
from walt.client.session import Session
from walt.client.terminal import Terminal, print_block
from walt.common.tables import render_table

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

JSON = Switch("--json", "print JSON for programs")


def services(json: bool) -> None:
    """Print the daemons that the server supervises."""
    rows = Session(Terminal()).json("cs.server.services", "rows")
    _show("Daemons of the server:", rows, ["name", "running", "pid", "restarts", "status"], json)


def workflows(json: bool) -> None:
    """Print what the server is doing."""
    rows = Session(Terminal()).json("cs.server.workflows", "rows")
    if not rows and not json:
        print("No workflow is running.")
        return
    _show("Running workflows:", rows, ["name", "step", "age", "step-age", "remaining"], json)


def _show(title: str, rows: list[dict[str, Any]], columns: list[str], json: bool) -> None:
    if json:
        from walt.client.output import print_json

        print_json(rows)
    else:
        print_block(title, render_table(columns, rows))


COMMANDS = {
    "services": Command(services, "print the daemons of the server", switches=[JSON]),
    "workflows": Command(workflows, "print what the server is doing", switches=[JSON]),
}
