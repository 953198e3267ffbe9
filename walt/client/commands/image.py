"""`walt image`."""

from __future__ import annotations

from walt.client.errors import Failure
from walt.client.grammar import Command, Switch
from walt.client.session import Session
from walt.client.terminal import Terminal, print_block
from walt.common.tables import render_table

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

OWN = ["name", "in-use", "created", "compatibility"]
OTHERS = ["user", "name", "created", "clonable-link"]
DEFAULTS = ["name", "created", "clonable-link"]


def show(all: bool, names_only: bool, refresh: bool, json: bool) -> None:
    """Print the images of the caller, or all."""
    if names_only and all:
        raise Failure("--names-only and --all cannot be used together")
    tables = Session(Terminal()).json("cs.images.show", "tables", all=all, refresh=refresh)
    hidden = tables.pop("hidden")
    tables.pop("total")
    if json:
        from walt.client.output import print_json

        print_json(tables)
    elif names_only:
        for row in tables["own"]:
            print(row["name"])
    else:
        _show_tables(tables, all, hidden)


def _show_tables(tables: dict[str, Any], show_all: bool, hidden: int) -> None:
    if tables["own"]:
        print_block("Your images:", render_table(OWN, tables["own"]))
    elif not show_all:
        print("\nYou have no image.")
    if tables["others"]:
        print_block("Images of other users:", render_table(OTHERS, tables["others"]))
    if tables["default"]:
        print_block("Default images:", render_table(DEFAULTS, tables["default"]))
    others = tables["others"] or tables["default"]
    if not show_all and hidden:
        print("Other images are available; use `walt image show --all` to see them.")
    elif not (tables["own"] or others or hidden):
        print("This platform has no image yet.")


COMMANDS = {
    "show": Command(
        show, "print your images",
        switches=[
            Switch("--all", "print images of other users and default images, too"),
            Switch("--names-only", "print names alone, one a line"),
            Switch("--refresh", "have the server read its image store again first"),
            Switch("--json", "print JSON for programs"),
        ],
    ),
}
