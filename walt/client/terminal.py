"""What only a terminal shows: titles in bold, busy indicator, questions, raw mode."""

from __future__ import annotations

import os
import select
import sys

WHEEL = "\\|/-"
DEFAULT_LABEL = "Server is working"


def both_terminals():
    """Tell whether a person is at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def bold(text):
    """Return a title: bold on a terminal that wants colours."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return f"\033[1m{text}\033[0m"
    return text


def print_block(title, table, footnote=None):
    """Print a titled table (spec user-surface §1.3)."""
    print(f"\n{bold(title)}\n\n{table}\n")
    if footnote:
        print(footnote)


def confirm(question="Are you sure?"):
    """Ask until `y` or `n`; the end of input means no."""
    while True:
        try:
            answer = input(f"{question} (y/n): ")
        except EOFError:
            print()
            answer = "n"
        if answer == "y":
            print("OK.")
            return True
        if answer == "n":
            print("Aborted.")
            return False


class Terminal:
    """Makes the busy indicators of a session; nothing without a terminal."""

    def __init__(self, label=DEFAULT_LABEL):
        self._label = label

    def busy(self):
        """Return an indicator for one call, None without terminal."""
        return Busy(self._label) if both_terminals() else None


class Busy:
    """A line `<label>... <wheel>`, redrawn every 0.1 s, erased before any other output."""

    def __init__(self, label):
        self._default = self._text = label
        self._turn = 0
        self._width = 0

    def label(self, text):
        """Show another label; empty: the default one."""
        self._text = text or self._default

    def wait(self, sock):
        """Turn the wheel until the socket has something to read."""
        while not select.select([sock], [], [], 0.1)[0]:
            line = f"{self._text}... {WHEEL[self._turn % 4]}"
            self._turn += 1
            sys.stdout.write("\r" + line.ljust(self._width))
            sys.stdout.flush()
            self._width = len(line)

    def erase(self):
        """Remove the line."""
        if self._width:
            sys.stdout.write("\r" + " " * self._width + "\r")
            sys.stdout.flush()
            self._width = 0


class RawMode:
    """Every key goes to the remote side; the terminal is restored whatever happens."""

    def __enter__(self):
        import termios
        import tty

        self._saved = termios.tcgetattr(0)
        tty.setraw(0)
        return self

    def __exit__(self, *exc):
        import termios

        termios.tcsetattr(0, termios.TCSADRAIN, self._saved)


def window():
    """Return (rows, columns) of the terminal."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return 24, 80
    return max(1, size.lines), max(1, size.columns)


