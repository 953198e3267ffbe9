"""What only a terminal shows: titles in bold, busy indicator, questions, raw mode."""

from __future__ import annotations

import os
import select
import sys

from walt.client.visible import own
from walt.common import tables
from walt.common.controls import visible

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TextIO

WHEEL = "\\|/-"
DEFAULT_LABEL = "Server is working"
WAITING = "Node bootup notification pending"


def both_terminals() -> bool:
    """Tell whether a person is at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def styled() -> bool:
    """Tell whether titles may be bold, drawings coloured (TERM, NO_COLOR)."""
    return os.environ.get("TERM", "") not in ("", "dumb") and not os.environ.get("NO_COLOR")


def bold(text: str, stream: TextIO | None = None) -> str:
    """Return a title: bold when `stream` (stdout) is a terminal that can, and wants colours."""
    if (stream or sys.stdout).isatty() and styled():
        return f"\033[1m{text}\033[0m"
    return text


NARROW = 60  # columns, below which a table that does not fit is shown row by row


def table(columns: list[str], rows: list[dict[str, Any]]) -> str:
    """Return a table, or its rows one below the other where the window is too narrow."""
    text = tables.render_table(columns, rows)
    return text if _fits(text) else tables.render_cards(columns, rows)


def table_of_columns(names: list[str], columns: Mapping[str, Sequence[Any]]) -> str:
    """Return the same of these columns: with thousands of rows it takes half as long."""
    text = tables.render_columns(names, [columns[name] for name in names])
    if _fits(text):
        return text
    rows = zip(*[columns[name] for name in names])
    return tables.render_cards(names, [dict(zip(names, row)) for row in rows])


def _fits(text: str) -> bool:
    """Tell whether a table has place in the window."""
    width = columns_here()
    return width is None or width >= NARROW or max(map(len, text.split("\n"))) <= width


def columns_here() -> int | None:
    """Return the columns of the terminal that standard output is, None for another output."""
    return window()[1] if sys.stdout.isatty() else None


def print_block(title: str, table: str, footnote: str | None = None) -> None:
    """Print a titled table (spec user-surface §1.3)."""
    own(f"\n{bold(visible(title))}\n\n")
    print(f"{table}\n")
    if footnote:
        print(footnote)


def read_line() -> str | None:
    """Return one line of standard input, None at its end.

    Read byte by byte: what follows belongs to the program run on a node.
    """
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return line.decode(errors="replace") if line else None
        line += byte
    return line[:-1].decode(errors="replace")


def _talk() -> Any:
    """Return the stream for questions: who sits there must see them, wherever the output goes."""
    return sys.stderr if sys.stdin.isatty() and not sys.stdout.isatty() else sys.stdout


def ask(question: str) -> str | None:
    """Print a question and return the answer, None at the end of input."""
    sys.stdout.flush()
    sys.stderr.flush()
    stream = _talk()
    stream.write(question)
    stream.flush()
    answer = read_line()
    if answer is None:
        print(file=stream)
    return answer


def yes_or_no(answer: str) -> bool | None:
    """Return what an answer to (y/n) means, in any case; None when it means neither."""
    return {"y": True, "yes": True, "n": False, "no": False}.get(answer.strip().lower())


def confirm(question: str = "Are you sure?") -> bool:
    """Ask until yes or no; the end of input means no."""
    while True:
        answer = ask(f"{question} (y/n): ")
        meaning = False if answer is None else yes_or_no(answer)
        if meaning:
            print("OK.", file=_talk())
            return True
        if meaning is False:
            print("Aborted.", file=_talk())
            return False


def warned(warning: str) -> bool:
    """Show a warning of the server and ask whether to go on."""
    print(warning, file=sys.stderr)
    return confirm()


class Terminal:
    """Makes the busy indicators of a session; nothing without a terminal."""

    def __init__(self, label: str = DEFAULT_LABEL) -> None:
        self._label = label

    def busy(self) -> Busy | None:
        """Return an indicator for one call, None without terminal."""
        return Busy(self._label) if both_terminals() else None


class Busy:
    """A line `<label>... <wheel>`, redrawn every 0.1 s, erased before any other output."""

    def __init__(self, label: str) -> None:
        self._default = self._text = label
        self._turn = 0
        self._width = 0

    def label(self, text: str) -> None:
        """Show another label; empty: the default one."""
        self._text = text or self._default

    def wait(self, sock: Any) -> None:
        """Turn the wheel until the socket has something to read."""
        while not select.select([sock], [], [], 0.1)[0]:
            line = f"{visible(self._text)}... {WHEEL[self._turn % 4]}"
            line = line[:max(10, window()[1] - 1)]  # a wrapped line could not be erased
            self._turn += 1
            own("\r" + line.ljust(self._width))
            sys.stdout.flush()
            self._width = len(line)

    def erase(self) -> None:
        """Remove the line."""
        if self._width:
            own("\r" + " " * self._width + "\r")
            sys.stdout.flush()
            self._width = 0


class RawMode:
    """Every key goes to the remote side; the terminal is restored whatever happens."""

    def __enter__(self) -> RawMode:
        import signal
        import termios
        import tty

        self._saved = termios.tcgetattr(0)
        self._handlers = {
            number: signal.signal(number, _ended) for number in (signal.SIGTERM, signal.SIGHUP)
        }
        tty.setraw(0)
        return self

    def __exit__(self, *exc: Any) -> None:
        import signal
        import termios

        termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _ended(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def clean_up_at_signals() -> None:
    """End as an exception does when this process is told to end: files that are not whole go."""
    import signal

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _ended)


def window() -> tuple[int, int]:
    """Return (rows, columns) of the terminal."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return 24, 80
    return size.lines or 24, size.columns or 80


def forget_output() -> None:
    """Drop what cannot be written: the reader of our output went away (Q-06), or a disk is full.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
