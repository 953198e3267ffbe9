"""The manual pages of the walt command: `man walt`, `man walt-node`, `man walt-log-format`…"""

from __future__ import annotations

import walt
from walt.client import main
from walt.client.commands import help as pages
from walt.client.grammar import subcommand_help
from walt.client.help.inline import Span
from walt.client.help.parse import Block, Code, Heading, Item, Listing, Paragraph, parse
from walt.client.help.roff import page

WIDTH = 72  # columns of what commands say of themselves


def manual() -> dict[str, str]:
    """Return the text of each page by its path below a directory of manuals (`man1/walt.1`)."""
    found = {
        "man1/walt.1": page(
            "walt", 1, "control a WalT network testbed", _top(), version=walt.__version__
        )
    }
    for category, (about, _) in main.CATEGORIES.items():
        found[f"man1/walt-{category}.1"] = page(
            f"walt-{category}", 1, about, _category(category), version=walt.__version__
        )
    known = pages.topics()
    for topic, title in known.items():
        found[f"man7/walt-{topic}.7"] = page(
            f"walt-{topic}", 7, title, parse(pages.read(topic), known),
            version=walt.__version__,
        )
    return found


def _example(text: str) -> Code:
    return Code(tuple((Span(line),) for line in text.split("\n")))


def _heading(text: str, level: int = 2) -> Heading:
    return Heading(level, (Span(text),))


def _category(category: str) -> list[Block]:
    blocks: list[Block] = [
        _heading("SYNOPSIS"),
        Paragraph((Span(f"walt {category} ", bold=True), Span("SUBCOMMAND", italic=True),
                   Span(" [SWITCHES] ARGUMENTS…"))),
        _heading("SUBCOMMANDS"),
    ]
    for name, command in main.load(category).items():
        text = subcommand_help(category, name, command, WIDTH)
        blocks += [_heading(f"{category} {name}", 3), _example(text)]
    return blocks


def _top() -> list[Block]:
    groups: list[Block] = [_heading("SEE ALSO")]
    for group, names in pages.GROUPS.items():
        told = ", ".join(f"walt-{name}(7)" for name in names)
        groups += [Paragraph((Span(f"{group}: ", bold=True), Span(told)))]
    return [
        _heading("SYNOPSIS"),
        Paragraph((Span("walt ", bold=True), Span("CATEGORY SUBCOMMAND", italic=True),
                   Span(" [SWITCHES] ARGUMENTS…"))),
        _heading("DESCRIPTION"), _example(main.top_help(WIDTH)),
        _heading("COMMANDS"),
        Listing(tuple(
            Item("", (Paragraph((Span(f"walt-{name}(1)", bold=True), Span(f": {about}"))),))
            for name, (about, _) in main.CATEGORIES.items()
        )),
        *groups,
    ]
