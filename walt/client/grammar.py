"""The grammar of the command line (spec user-surface §1.2).

A parser of our own: a word after a valued switch is always its value, even
when it starts with a dash (`--history -5m:`), abbreviations do not exist, and
`--` ends the switches.
"""

from __future__ import annotations

from walt.client.errors import HelpWanted, UsageError

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Kind = type[str] | type[int] | tuple[str, ...]

HELP = ("-h", "--help")
LARGEST = 10**9  # seconds, lines, boots
SAME_MEANING = (  # words that people have in their fingers, and those that walt has for them
    ("remove", "forget", "remove-checkpoint", "delete", "del", "rm", "erase"),
    ("list", "show", "list-checkpoints", "ls", "status", "info", "ps", "tail"),
    ("reboot", "restart", "reset"), ("rename", "mv", "move"), ("cp", "copy", "scp", "rsync"),
    ("shell", "ssh", "login", "connect"), ("run", "exec", "execute"), ("console", "tty", "serial"),
    ("create", "build", "add-checkpoint", "add", "new"), ("duplicate", "tag"),
    ("clone", "pull", "import"), ("publish", "push"), ("acquire", "take", "reserve"),
    ("release", "free", "return"), ("save", "commit", "snapshot"),
    ("config", "set", "settings"), ("rescan", "scan"), ("tree", "map", "topology"),
)
MIN_MEANING = 24  # columns that the meaning of a word needs at its right


class Switch:
    """One switch; without `metavar` it takes no value.

    `kind` is str, int, or a tuple of accepted words in capitals; `excludes`
    names other switches; `default` is the value when it is absent.
    """

    def __init__(
        self, name: str, help: str, *, aliases: Iterable[str] = (), metavar: str | None = None,
        kind: Kind = str, default: object = None, excludes: Iterable[str] = (),
    ) -> None:
        self.name = name
        self.help = help
        self.aliases = tuple(aliases)
        self.metavar = metavar
        self.kind = kind
        self.default = default if metavar else False
        self.excludes = tuple(excludes)

    @property
    def key(self) -> str:
        """The name of its value in a command's options."""
        return self.name.lstrip("-").replace("-", "_")

    def parse(self, text: str) -> Any:
        """Return the value of `text`, or raise UsageError."""
        if self.kind is int:
            try:
                number = int(text)
            except ValueError:
                raise UsageError(f"{self.name} expects a whole number, not {text!r}") from None
            if abs(number) > LARGEST:
                raise UsageError(f"{self.name} expects a number up to {LARGEST}, not {text[:40]}")
            return number
        if isinstance(self.kind, tuple):
            if text.upper() in self.kind:
                return text.upper()
            raise UsageError(f"{self.name} expects one of {', '.join(self.kind)}, not {text!r}")
        return text

    def form(self) -> str:
        """Return how it is written, for the help of a subcommand."""
        text = ", ".join((*self.aliases, self.name))
        if self.metavar:
            if isinstance(self.kind, tuple):
                kind = "{" + ", ".join(self.kind) + "}"
            else:
                kind = self.kind.__name__
            text += f" {self.metavar}:{kind}"
        return text

    def meaning(self) -> str:
        """Return what it does, for the help of a subcommand."""
        text = self.help
        if self.metavar and self.default not in (None, "", 0, -1):  # -1: no limit
            text += f"; the default is {self.default}"
        if self.excludes:
            text += f"; excludes {', '.join(self.excludes)}"
        return text


class Arg:
    """One positional argument; optional when it has a default, last if variadic.

    `set_of` says of what it is a set: one word with commas.
    """

    def __init__(
        self, name: str, *, default: str | None = None, optional: bool = False,
        variadic: bool = False, set_of: str = "",
    ) -> None:
        self.name = name
        self.default = default
        self.optional = optional or default is not None
        self.variadic = variadic
        self.set_of = set_of

    def shown(self) -> str:
        """Return its form in a usage line."""
        if self.variadic:
            return f"{self.name}..."
        return f"[{self.name}={self.default}]" if self.optional else self.name


class Command:
    """One subcommand: `run(**arguments, **options)` returns the exit status or None.

    `usage` replaces the usage line where one line cannot tell the forms.
    """

    def __init__(
        self, run: Callable[..., int | None], help: str, *, args: Iterable[Arg] = (),
        switches: Iterable[Switch] = (), usage: Iterable[str] | None = None,
    ) -> None:
        self.run = run
        self.help = help
        self.args = tuple(args)
        self.switches = tuple(switches)
        self.usage = usage

    def parse(self, given_words: Iterable[str]) -> dict[str, Any]:
        """Return the values of arguments and switches; raises UsageError or HelpWanted."""
        table = {
            name: switch for switch in self.switches for name in (switch.name, *switch.aliases)
        }
        positional: list[str] = []
        given: dict[Switch, Any] = {}
        words = list(given_words)
        while words:
            word = words.pop(0)
            if word == "--":
                positional += words
                break
            if word in HELP:
                raise HelpWanted
            if word.startswith("-") and word != "-":
                _read_switch(word, words, table, given)
            else:
                positional.append(word)
        _check_excludes(given)
        values = {switch.key: switch.default for switch in self.switches}
        values.update({switch.key: value for switch, value in given.items()})
        values.update(self._positional(positional, given))
        return values

    def _positional(
        self, given_words: list[str], switches: Mapping[Switch, Any]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        words = list(given_words)
        for arg in self.args:
            if arg.variadic:
                values[arg.name] = words
                words = []
            elif words:
                values[arg.name] = words.pop(0)
            elif arg.optional:
                values[arg.name] = arg.default
            else:
                raise UsageError(f"missing argument {arg.name}")
        if words:
            raise UsageError(f"unexpected argument {words[0]!r}{self._hint(given_words, switches)}")
        return values

    def _hint(self, words: list[str], switches: Mapping[Switch, Any]) -> str:
        """Return what to say of too many words: several nodes may have been meant."""
        many = len(words) - len(self.args)
        if self.args and self.args[0].set_of:
            kind, items = self.args[0].set_of, words[:1 + many]
        else:
            given = [switch for switch in switches if (switch.metavar or "").startswith("SET_OF_")]
            if not given:
                return ""
            kind = (given[0].metavar or "").removeprefix("SET_OF_").lower()
            items = [switches[given[0]], *words[:many]]
        return f"; several {kind} are one word with commas: {','.join(items)}"


def _read_switch(
    word: str, words: list[str], table: dict[str, Switch], given: dict[Switch, Any]
) -> None:
    name, equals, value = word.partition("=")
    switch = table.get(name)
    if switch is None:
        near = meant(name, table)
        raise UsageError(
            f"unknown switch {name}; did you mean {near}?" if near
            else f"unknown switch {name} (words for another program go after --)"
        )
    if switch in given:
        raise UsageError(f"switch {name} may be given only once")
    if switch.metavar is None:
        if equals:
            raise UsageError(f"switch {name} takes no value")
        given[switch] = True
        return
    if not equals:
        if not words:
            raise UsageError(f"switch {name} needs a value")
        value = words.pop(0)
    given[switch] = switch.parse(value)


def meant(word: str, known: Iterable[str]) -> str | None:
    """Return the one of the known words that a mistyped one is most like, or means, if any."""
    import difflib

    known = list(known)
    near = [
        other for group in SAME_MEANING if word in group for other in group if other in known
    ] or difflib.get_close_matches(word, known, 1)
    return near[0] if near else None


def _check_excludes(given: dict[Switch, Any]) -> None:
    names = {switch.name for switch in given}
    for switch in given:
        for other in switch.excludes:
            if other in names:
                raise UsageError(f"{switch.name} and {other} exclude each other")


def definitions(
    rows: Iterable[tuple[str, str]], gap: int = 2, width: int | None = None
) -> list[str]:
    """Return lines of words, each with its meaning at its right, aligned.

    With a `width`, lines go no further: the meanings are wrapped, or below their words.
    """
    rows = list(rows)
    margin = 4 + max(len(word) for word, _ in rows) + gap
    if width is None:
        return [f"    {word}".ljust(margin) + meaning for word, meaning in rows]
    import textwrap

    below = width - margin < MIN_MEANING
    indent = 8 if below else margin
    lines = []
    for word, meaning in rows:
        parts = textwrap.wrap(meaning, max(MIN_MEANING, width - indent), break_on_hyphens=False)
        if below:
            lines += wrapped(f"    {word}", width)
        elif parts:
            lines.append(f"    {word}".ljust(margin) + parts.pop(0))
        lines += [indent * " " + part for part in parts]
    return lines


def wrapped(line: str, width: int | None, indent: str = 8 * " ") -> list[str]:
    """Return a line in those that fit, the next ones with this indentation."""
    if width is None:
        return [line]
    import textwrap

    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def subcommand_help(
    category: str, name: str, command: Command, width: int | None = None
) -> str:
    """Return the help of one subcommand, for a terminal of that width if there is one."""
    if command.usage is not None:
        usage = list(command.usage)
    else:
        args = "".join(" " + arg.shown() for arg in command.args)
        usage = [f"walt {category} {name} [SWITCHES]{args}"]
    lines = [*wrapped(command.help, width, ""), "", "Usage:"]
    for line in usage:
        lines += wrapped("    " + line, width)
    lines += ["", "Meta-switches:"]
    lines += definitions([("-h, --help", "Prints this help message and quits")], 4, width)
    if command.switches:
        ordered = sorted(command.switches, key=lambda switch: switch.name)
        lines += ["", "Switches:"]
        lines += definitions([(switch.form(), switch.meaning()) for switch in ordered], 4, width)
    return "\n".join(lines)
