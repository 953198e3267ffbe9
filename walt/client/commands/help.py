"""`walt help`: pages that come with the package, without server or configuration."""

from __future__ import annotations

import os
import sys

from walt.client.errors import WRONG_WORDS, Failure
from walt.client.grammar import Arg, Command, Switch, meant

PAGES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "doc")
INTRO = "help-intro"
TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

GROUPS = {
    "To begin with": (
        "help-intro", "tutorial", "client-install", "remote-use", "node-ownership", "device-sets",
        "shell-completion", "experiment-file", "experiment-tutorial", "experiments", "web",
    ),
    "Nodes": (
        "node-bootup", "node-config", "node-console", "node-cp", "node-expose", "node-netsetup",
        "node-reboot", "node-save", "shells", "ssh", "vnode-disks", "vnode-networks",
    ),
    "Images": (
        "image-build", "image-cp", "image-from-scratch", "image-spec-file", "images",
        "optional-features", "registries",
    ),
    "Logs": (
        "log-archive", "log-cat", "log-checkpoint", "log-echo", "log-export", "log-format",
        "log-history", "log-issuers", "log-monitor", "log-pandas", "log-realtime",
        "log-serial", "log-show", "log-tee", "log-wait", "logging", "rpi-serial",
    ),
    "For programs": (
        "ansible", "json", "notebooks", "pytest", "scripting", "scripting-images",
        "scripting-logs", "scripting-nodes", "scripting-tools", "statuses", "web-api",
    ),
    "For the administrator of a platform": (
        "admin", "backup", "boot-modes", "boot-proxy", "compatibility", "device-changes",
        "device-config", "device-expose", "device-netsetup", "device-port-config", "g5k",
        "networking", "node-install", "power", "server-install", "server-network-config",
        "server-upgrade", "switch-install", "switches", "team-server", "topology",
        "troubleshooting", "unmanaged-devices", "vpn", "vpn-http-entrypoint", "vpn-security",
        "vpn-ssh-entrypoint", "web-server",
    ),
    "For developers": (
        "design-notes", "dev-client", "dev-server", "dev-server-db",
        "dev-walt-python-packages", "developer", "new-node-support", "packaging", "trackexec",
    ),
}
SHOWN_LINES = 3  # of one page, of those that have a word sought


def topics() -> dict[str, str]:
    """Return the title of each topic."""
    found = {}
    for name in sorted(file[:-3] for file in os.listdir(PAGES) if file.endswith(".md")):
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
        near = meant(topic, known)
        hint = f"did you mean {near!r}?" if near else "use `walt help list` or `walt help search`."
        raise Failure(f"There is no help topic {topic!r}; {hint}", WRONG_WORDS)
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
    for group, names in GROUPS.items():
        print(f"\n{group}:")
        for name in names:
            print(f"{name.ljust(width)} -- {found[name]}")


def search(word: list[str], json: bool) -> int:
    """Print the pages and the commands that have all these words, and the lines with them."""
    sought = [term.lower() for term in word]
    if not sought:
        raise Failure("Say what to look for: walt help search WORD", WRONG_WORDS)
    found = [*_commands(sought), *_pages(sought)]
    if not found and not json:
        raise Failure(
            f"No page and no command has {' and '.join(map(repr, word))}; see: walt help list"
        )
    if json:
        from walt.client.output import print_json

        print_json(found)
        return 0 if found else 1
    for row in found:
        print(f"{row['command']} -- {row['title']}")
        for line in row["lines"][:SHOWN_LINES]:
            print(f"    {line}")
    return 0


def _commands(sought: list[str]) -> list[dict[str, Any]]:
    from walt.client import main

    rows = [
        {"command": f"walt {category} {name}", "title": command.help, "lines": []}
        for category in main.categories() for name, command in main.load(category).items()
    ]
    return [
        row for row in rows
        if all(term in f"{row['command']} -- {row['title']}".lower() for term in sought)
    ]


def _pages(sought: list[str]) -> list[dict[str, Any]]:
    """Return rows of the pages that have all words, those that name them in the title first."""
    found = []
    for name, title in topics().items():
        text = read(name)
        if not all(term in f"{name}\n{text}".lower() for term in sought):
            continue
        in_title = sum(term in f"{name} {title}".lower() for term in sought)
        lines = [
            line.strip() for line in text.splitlines()[1:]
            if any(term in line.lower() for term in sought)
        ]
        row = {"command": f"walt help show {name}", "title": title, "lines": lines}
        found.append((-in_title, -len(lines), row["command"], row))
    return [row for *_, row in sorted(found, key=lambda ranked: ranked[:3])]


COMMANDS = {
    "show": Command(
        show, "print a page of help", args=[Arg("topic", default=INTRO)],
        usage=["walt help show", "walt help show <topic>"],
    ),
    "list": Command(
        list_topics, "print the list of pages",
        switches=[Switch("--json", "print JSON for programs")],
    ),
    "search": Command(
        search, "find words in pages and commands", args=[Arg("word", variadic=True)],
        switches=[Switch("--json", "print JSON for programs")],
    ),
}
