"""`walt help`: pages that come with the package, without server or configuration."""

from __future__ import annotations

import os
import sys

from walt.client.errors import WRONG_WORDS, Failure
from walt.client.grammar import Arg, Command, Switch

PAGES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "doc")
INTRO = "help-intro"


def topics() -> dict[str, str]:
    """Return the title of each topic."""
    found = {}
    for name in sorted(one[:-3] for one in os.listdir(PAGES) if one.endswith(".md")):
        with open(os.path.join(PAGES, name + ".md"), encoding="utf-8") as stream:
            found[name] = stream.readline().lstrip("# ").strip()
    return found


def read(topic: str) -> str:
    """Return the Markdown of a topic."""
    with open(os.path.join(PAGES, topic + ".md"), encoding="utf-8") as stream:
        return stream.read()


def show(topic: str) -> int:
    """Show one page: in a pager on a terminal, else as it is."""
    known = topics()
    if topic not in known:
        raise Failure(f"There is no help topic {topic!r}; use `walt help list`.", WRONG_WORDS)
    if sys.stdout.isatty() and sys.stdin.isatty():
        from walt.client.help.screen import page

        page(topic, known, read)
    else:
        sys.stdout.write(read(topic))
    return 0


def list_topics(json: bool) -> None:
    """Print the topics."""
    found = topics()
    if json:
        from walt.client.output import print_json

        print_json(found)
        return
    width = max(len(name) for name in found)
    print("Use `walt help show <topic>` to read one of these pages:")
    for name, title in found.items():
        print(f"{name.ljust(width)} -- {title}")


COMMANDS = {
    "show": Command(
        show, "print a page of help", args=[Arg("topic", default=INTRO)],
        usage=["walt help show", "walt help show <topic>"],
    ),
    "list": Command(
        list_topics, "print the list of pages",
        switches=[Switch("--json", "print JSON for programs")],
    ),
}
