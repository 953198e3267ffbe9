"""`walt device`."""

from __future__ import annotations

from walt.client.grammar import Command, Switch
from walt.client.session import Session
from walt.client.terminal import Terminal, print_block
from walt.common.tables import render_table, without_empty_columns

COLUMNS = ["name", "ip", "mac", "type", "netsetup"]


def show(json):
    """Print every device."""
    tables = Session(Terminal()).json("cs.devices.show", "tables")
    if json:
        from walt.client.output import print_json

        print_json(tables)
        return
    _print(
        "The network has the following devices:", tables["known"],
        "Use `walt device tree` for a view of the network, and `walt device forget <name>`\n"
        "to make a device that is gone disappear.",
    )
    if tables["unknown"]:
        _print(
            "Devices of unknown type:", tables["unknown"],
            "If one of them is a switch, tell it: `walt device config <name> type=switch`.",
        )


def _print(title, rows, footnote):
    print_block(title, render_table(without_empty_columns(COLUMNS, rows), rows), footnote)


JSON = Switch("--json", "print JSON for programs")

COMMANDS = {"show": Command(show, "print the devices of the platform", switches=[JSON])}
