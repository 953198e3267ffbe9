"""The `walt` command: find the subcommand, parse, run, turn errors into exit statuses."""

from __future__ import annotations

import sys

import walt
from walt.client.errors import Failure, UsageError
from walt.client.grammar import subcommand_help

# Categories in help order: what they are about, and the module that has them.
CATEGORIES = {
    "image": ("images of operating systems that nodes boot", "walt.client.commands.image"),
    "node": ("nodes: create, boot, reboot, open shells", "walt.client.commands.node"),
    "log": ("logs of nodes and of the platform", "walt.client.commands.log"),
    "device": ("every device of the platform", "walt.client.commands.device"),
    "advanced": ("how the server is doing", "walt.client.commands.advanced"),
    "help": ("pages of help", "walt.client.commands.help"),
}
HELP = ("-h", "--help")


def main():
    """Run the command line of the process and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(words):
    """Run one command line; return its exit status (spec user-surface §1.2)."""
    try:
        status = _dispatch(list(words))
        sys.stdout.flush()
        return status
    except Failure as failure:
        sys.stdout.flush()
        print(str(failure), file=sys.stderr)
        return failure.status
    except KeyboardInterrupt:
        print("\nAborted.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        from walt.client.session import quiet_exit

        quiet_exit()
        return 1


def _dispatch(words):
    if not words or words[0] in HELP:
        if not words:
            print("A category is missing.\n")
        print(top_help())
        return 0 if words else 1
    category = words.pop(0)
    if category not in CATEGORIES:
        print(f"Unknown category {category!r}.\n\n{top_help()}")
        return 1
    commands = load(category)
    if not words or words[0] in HELP:
        if not words:
            print("A subcommand is missing.\n")
        print(category_help(category, commands))
        return 0 if words else 1
    name = words.pop(0)
    command = commands.get(name)
    if command is None:
        print(f"Unknown subcommand {name!r}.\n\n{category_help(category, commands)}")
        return 1
    before = words[:words.index("--")] if "--" in words else words
    if any(word in HELP for word in before):
        print(subcommand_help(category, name, command))
        return 0
    try:
        values = command.parse(words)
    except UsageError as error:
        print(f"{error}.\n\n{subcommand_help(category, name, command)}")
        return 2
    return command.run(**values) or 0


def load(category):
    """Import the module of one category only, and return its subcommands by name."""
    module = __import__(CATEGORIES[category][1], fromlist=["COMMANDS"])
    return module.COMMANDS


def top_help():
    """Return the help of the command itself."""
    lines = [
        f"WalT {walt.__version__}: control a WalT platform.", "",
        "Usage:", "    walt CATEGORY SUBCOMMAND [SWITCHES] args...", "",
        "Help:",
        "    walt --help                        this text",
        "    walt <category> --help             its subcommands",
        "    walt <category> <subcommand> -h    arguments and switches",
        "    walt help show                     introduction to WalT", "",
        "Categories:",
    ]
    width = max(len(name) for name in CATEGORIES)
    lines += [f"    {name.ljust(width)}  {text}" for name, (text, _) in CATEGORIES.items()]
    return "\n".join(lines)


def category_help(category, commands):
    """Return the help of one category."""
    width = max(len(name) for name in commands)
    lines = [
        f"walt {category}: {CATEGORIES[category][0]}.", "",
        "Usage:", f"    walt {category} SUBCOMMAND [SWITCHES] args...", "",
        "Subcommands:",
    ]
    lines += [f"    {name.ljust(width)}  {one.help}" for name, one in commands.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
