"""Scripts for shells: the table of commands, made here, and what reads it, in two files."""

from __future__ import annotations

import os

from walt.client.commands.help import topics
from walt.client.completion import types
from walt.client.main import categories, load

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

    from walt.client.grammar import Command

HERE = os.path.dirname(__file__)
HEAD = {
    "bash": "# Completion of walt, made by `walt advanced dump-bash-autocomplete`.",
    "zsh": "#compdef walt\n# Made by `walt advanced dump-zsh-autocomplete`.",
}
NO_VALUE = "-"  # the type of a switch without value


def dump(shell: str) -> str:
    """Return the script for a shell, bash or zsh."""
    with open(os.path.join(HERE, f"walt.{shell}"), encoding="utf-8") as stream:
        rest = stream.read()
    return "\n".join([HEAD[shell], "", table(), "", rest])


def table() -> str:
    """Return a shell function that sets arrays for the words before the one being typed.

    For no word, a category, or the type of help topics: `_walt_names` and
    `_walt_texts`. For a category and a subcommand: its switches in these two, the
    types of their values in `_walt_types`, those of arguments in `_walt_args`, and in
    `_walt_rest` the one of all further arguments. Both shells read it the same way.
    """
    known = categories()
    cases = [_case("", _words((name, text) for name, (text, _) in known.items()))]
    for category in known:
        commands = load(category)
        words = _words((name, command.help) for name, command in commands.items())
        cases.append(_case(category, words))
        cases += [
            _case(f"{category} {name}", _subcommand(category, name, command))
            for name, command in commands.items()
        ]
    cases.append(_case(types.TOPIC, _words(topics().items())))
    return "\n".join([
        "_walt_table() {",
        "    _walt_names=() _walt_texts=() _walt_types=() _walt_args=() _walt_rest=",
        '    case "$1" in', *cases, "    esac", "}",
    ])


def _case(words: str, lines: Iterable[str]) -> str:
    return "\n".join([f"    '{words}')", *(f"        {line}" for line in lines), "        ;;"])


def _words(entries: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(entries)
    return [
        _array("_walt_names", (name for name, _ in pairs)),
        _array("_walt_texts", (text for _, text in pairs)),
    ]


def _subcommand(category: str, name: str, command: Command) -> list[str]:
    switches = [("-h", "print help", NO_VALUE), ("--help", "print help", NO_VALUE)]
    switches += [
        (word, switch.help, types.of_value(switch.metavar) if switch.metavar else NO_VALUE)
        for switch in command.switches for word in (switch.name, *switch.aliases)
    ]
    lines = _words((word, text) for word, text, _ in switches)
    lines.append(_array("_walt_types", (kind for _, _, kind in switches)))
    args = [types.of_argument(category, name, arg) for arg in command.args]
    lines.append(_array("_walt_args", args))
    if command.args and command.args[-1].variadic:
        lines.append(f"_walt_rest={_quoted(args[-1])}")
    return lines


def _array(name: str, words: Iterable[str]) -> str:
    return f"{name}=({' '.join(_quoted(word) for word in words)})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
