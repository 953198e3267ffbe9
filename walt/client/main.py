"""The `walt` command: find the subcommand, parse, run, turn errors into exit statuses."""

from __future__ import annotations

import gc
import os
import sys

import walt
from walt.client.errors import (
    FAILED,
    INTERRUPTED,
    WRONG_WORDS,
    Failure,
    HelpWanted,
    NotConfigured,
    UsageError,
)
from walt.client.grammar import HELP, definitions, meant, subcommand_help, wrapped
from walt.client.visible import own, protect_terminals

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from walt.client.grammar import Command

# Categories in help order: what they are about, and the module that has them.
CATEGORIES = {
    "image": ("images of operating systems that nodes boot", "walt.client.commands.image"),
    "node": ("create, boot and reboot nodes, open shells on them", "walt.client.commands.node"),
    "log": ("logs of nodes and of the platform", "walt.client.commands.log"),
    "device": ("every device of the platform", "walt.client.commands.device"),
    "experiment": (
        "experiments that are one file, and can be done again", "walt.client.commands.experiment"
    ),
    "advanced": (
        "services of the server, certificates, default images, shell completion",
        "walt.client.commands.advanced",
    ),
    "help": ("pages of help", "walt.client.commands.help"),
}
SHORT = ("doctor", "web")  # `walt doctor` is easier to remember than where it belongs


def main() -> None:
    """Run the command line of the process and exit with its status."""
    # Looking for garbage while modules load costs 2 ms, and there is hardly any.
    gc.set_threshold(50_000)
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal cannot show must not end a command.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    protect_terminals()
    sys.exit(run(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Put /dev/null where a caller closed a standard stream: no socket may take its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            lowest_free = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(lowest_free, mode))


def run(words: Iterable[str]) -> int:
    """Run one command line; return its exit status (spec user-surface §1.2)."""
    try:
        status = _guarded(list(words))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        from walt.client.terminal import forget_output

        forget_output()
        return FAILED
    except OSError as error:
        from walt.client.terminal import forget_output
        from walt.common.errors import in_words

        forget_output()
        print(f"The output cannot be written: {in_words(error)}", file=sys.stderr)
        return FAILED


def _guarded(words: list[str]) -> int:
    try:
        return _dispatch(words)
    except Failure as failure:
        sys.stdout.flush()
        if str(failure):
            print(str(failure), file=sys.stderr)
        return failure.status
    except BrokenPipeError:
        raise
    except OSError as error:
        from walt.common.errors import in_words

        sys.stdout.flush()
        print(f"This machine refuses: {in_words(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        sys.stdout.flush()
        print("\nAborted.", file=sys.stderr)
        return INTERRUPTED


def categories() -> dict[str, tuple[str, str]]:
    """Return what each category is about and its module; those of plugins come first.

    A plugin replaces no category of ours. The module of a plugin has, beside COMMANDS, HELP.
    """
    from walt.client import plugins

    added = [name for name in plugins.names(plugins.CATEGORIES) if name not in CATEGORIES]
    return {**{name: (_plugin(name).HELP, "") for name in added}, **CATEGORIES}


def _plugin(category: str) -> Any:
    """Return the module of a plugin that has a category, None without one. Raises Failure."""
    from walt.client import plugins

    module = plugins.load(plugins.CATEGORIES, category)
    if module is not None and not (
        isinstance(getattr(module, "HELP", None), str)
        and isinstance(getattr(module, "COMMANDS", None), dict)
    ):
        raise Failure(
            f"the plugin of category {category} lacks HELP (a text) or COMMANDS (a dict);"
            " repair or remove it"
        )
    return module


def _early(words: list[str]) -> None:
    """Let a plugin have its way before anything else is done."""
    from walt.client import plugins

    plugins.call("early-startup", tuple(words))


def _dispatch(words: list[str]) -> int:
    _early(words)
    if words and words[0] == "--version":
        print(f"walt {walt.__version__}")
        return 0
    if words and words[0] in HELP:
        own(decorated(top_help(columns_here())) + "\n")
        return 0
    if not words:
        raise Failure(f"A category is missing.\n\n{top_help()}", WRONG_WORDS)
    if words[0] in SHORT:
        words.insert(0, "advanced")
    category = words.pop(0)
    if category not in CATEGORIES and _plugin(category) is None:
        raise _unknown("category", category, categories(), "walt --help")
    commands = load(category)
    if words and words[0] in HELP:
        print(category_help(category, commands, columns_here()))
        return 0
    if not words:
        raise Failure(
            f"A subcommand is missing.\n\n{category_help(category, commands)}", WRONG_WORDS
        )
    name = words.pop(0)
    command = commands.get(name)
    if command is None:
        raise _unknown("subcommand", name, commands, f"walt {category} --help")
    try:
        values = command.parse(words)
    except HelpWanted:
        print(subcommand_help(category, name, command, columns_here()))
        return 0
    except UsageError as error:
        joint = " See" if str(error).endswith("?") else "; see"
        raise Failure(
            f"{error}{joint}: walt {category} {name} --help", WRONG_WORDS
        ) from None
    try:
        return command.run(**values) or 0
    except NotConfigured:
        from walt.client import first_use

        first_use.set_up()
        return command.run(**values) or 0


def _unknown(what: str, word: str, known: Iterable[str], where: str) -> Failure:
    near = meant(word, known)
    hint = f"did you mean {near!r}?" if near else f"see: {where}"
    return Failure(f"Unknown {what} {word!r}; {hint}", WRONG_WORDS)


def load(category: str) -> dict[str, Command]:
    """Import the module of one category only, and return its subcommands by name."""
    if category in CATEGORIES:
        module = __import__(CATEGORIES[category][1], fromlist=["COMMANDS"])
    else:
        module = _plugin(category)
    commands: dict[str, Command] = module.COMMANDS
    return commands


def decorated(text: str) -> str:
    """Return a text with the logo at its right, where there is a place for it."""
    if not sys.stdout.isatty():
        return text
    from walt.client import logo

    return logo.beside(text)


def columns_here() -> int | None:
    """Return the columns of the terminal, None for another output."""
    from walt.client import terminal

    return terminal.columns_here()


def top_help(width: int | None = None) -> str:
    """Return the help of the command itself."""
    lines = [
        f"WalT {walt.__version__}: control a WalT platform.", "",
        "Usage:", *wrapped("    walt CATEGORY SUBCOMMAND [SWITCHES] args...", width), "",
        "Help:",
        *definitions([
            ("walt --help", "this text"), ("walt <category> --help", "its subcommands"),
            ("walt <category> <subcommand> -h", "arguments and switches"),
            ("walt help show", "introduction to WalT"),
            ("walt help search WORD", "pages and commands that have a word"),
        ], 4, width),
        "", "Categories:",
    ]
    rows = [(name, text) for name, (text, _) in categories().items()]
    return "\n".join(lines + definitions(rows, width=width))


def category_help(category: str, commands: dict[str, Command], width: int | None = None) -> str:
    """Return the help of one category."""
    lines = [
        *wrapped(f"walt {category}: {categories()[category][0]}.", width, ""), "",
        "Usage:", *wrapped(f"    walt {category} SUBCOMMAND [SWITCHES] args...", width), "",
        "Subcommands:",
    ]
    rows = [(name, command.help) for name, command in commands.items()]
    return "\n".join(lines + definitions(rows, width=width))


if __name__ == "__main__":
    main()
