"""The grammar of the command line (spec user-surface §1.2).

A parser of our own: a word after a valued switch is always its value, even
when it starts with a dash (`--history -5m:`), abbreviations do not exist, and
`--` ends the switches.
"""

from __future__ import annotations

from walt.client.errors import UsageError


class Switch:
    """One switch; without `metavar` it takes no value.

    `kind` is str, int, or a tuple of accepted words; `excludes` names other
    switches; `default` is the value when it is absent.
    """

    def __init__(
        self, name, help, *, aliases=(), metavar=None, kind=str, default=None, excludes=()
    ):
        self.name = name
        self.help = help
        self.aliases = tuple(aliases)
        self.metavar = metavar
        self.kind = kind
        self.default = default if metavar else False
        self.excludes = tuple(excludes)

    @property
    def key(self):
        """The name of its value in a command's options."""
        return self.name.lstrip("-").replace("-", "_")

    def parse(self, text):
        """Return the value of `text`, or raise UsageError."""
        if self.kind is int:
            try:
                return int(text)
            except ValueError:
                raise UsageError(f"{self.name} expects a whole number, not {text!r}") from None
        if isinstance(self.kind, tuple):
            for word in self.kind:
                if text.upper() == word:
                    return word
            raise UsageError(f"{self.name} expects one of {', '.join(self.kind)}, not {text!r}")
        return text


class Arg:
    """One positional argument; optional when it has a default, last if variadic."""

    def __init__(self, name, *, default=None, optional=False, variadic=False):
        self.name = name
        self.default = default
        self.optional = optional or default is not None
        self.variadic = variadic

    def shown(self):
        """Return its form in a usage line."""
        if self.variadic:
            return f"{self.name}..."
        return f"[{self.name}={self.default}]" if self.optional else self.name


class Command:
    """One subcommand: `run(**arguments, **options)` returns the exit status or None."""

    def __init__(self, run, help, *, args=(), switches=(), usage=None):
        self.run = run
        self.help = help
        self.args = tuple(args)
        self.switches = tuple(switches)
        self.usage = usage

    def parse(self, words):
        """Return the values of arguments and switches, or raise UsageError."""
        table = {
            name: switch for switch in self.switches for name in (switch.name, *switch.aliases)
        }
        positional, given = [], {}
        words = list(words)
        while words:
            word = words.pop(0)
            if word == "--":
                positional += words
                break
            if word.startswith("-") and word != "-":
                self._switch(word, words, table, given)
            else:
                positional.append(word)
        self._check_excludes(given)
        values = {switch.key: switch.default for switch in self.switches}
        values.update({switch.key: value for switch, value in given.items()})
        values.update(self._positional(positional))
        return values

    def _switch(self, word, words, table, given):
        name, equals, value = word.partition("=")
        switch = table.get(name)
        if switch is None:
            raise UsageError(f"unknown switch {name}")
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

    def _check_excludes(self, given):
        names = {switch.name for switch in given}
        for switch in given:
            for other in switch.excludes:
                if other in names:
                    raise UsageError(f"{switch.name} and {other} exclude each other")

    def _positional(self, words):
        values = {}
        words = list(words)
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
            raise UsageError(f"unexpected argument {words[0]!r}")
        return values


def subcommand_help(category, name, command):
    """Return the help of one subcommand."""
    if command.usage is not None:
        lines = [command.help, "", "Usage:", *("    " + line for line in command.usage)]
    else:
        args = "".join(" " + arg.shown() for arg in command.args)
        lines = [command.help, "", "Usage:", f"    walt {category} {name} [SWITCHES]{args}"]
    lines += ["", "Meta-switches:", "    -h, --help    Prints this help message and quits"]
    if command.switches:
        lines += ["", "Switches:"]
        for switch in sorted(command.switches, key=lambda one: one.name):
            lines.append("    " + _switch_help(switch))
    return "\n".join(lines)


def _switch_help(switch):
    text = ", ".join((*switch.aliases, switch.name))
    if switch.metavar:
        kind = switch.kind.__name__ if isinstance(switch.kind, type) else (
            "{" + ", ".join(switch.kind) + "}"
        )
        text += f" {switch.metavar}:{kind}"
    text += f"    {switch.help}"
    if switch.metavar and switch.default not in (None, "", 0):
        text += f"; the default is {switch.default}"
    if switch.excludes:
        text += f"; excludes {', '.join(switch.excludes)}"
    return text
