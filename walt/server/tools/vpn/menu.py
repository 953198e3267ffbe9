"""The full-screen menu of `walt-vpn-admin` (spec user-surface §1.17)."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
CLEAR, REVERSE, PLAIN = "\x1b[2J\x1b[H", "\x1b[7m", "\x1b[0m"
# Arrow keys are told by their last letter.
PREVIOUS, NEXT, CHOOSE = "AD", "BC", "\r\n"
INTERRUPT, END = "\x03", "\x04"

Entry = tuple[str, Callable[[], object]]


class Quit(Exception):
    """The person wants to leave the menu."""


def moved(key: str, at: int, count: int) -> int:
    """Return where the selection is after a key: it stops at the first and the last entry."""
    if key in PREVIOUS:
        return max(0, at - 1)
    return min(count - 1, at + 1) if key in NEXT else at


@contextmanager
def keys() -> Iterator[Callable[[], str]]:
    """Take keys one by one, as they are pressed; gives what returns the next one."""
    saved = termios.tcgetattr(0)
    tty.setcbreak(0)
    try:
        yield lambda: os.read(0, 1).decode("latin-1") or END
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)


class Menu:
    """Shows what `entries` returns, with a title, until somebody quits."""

    def __init__(self, title: str, entries: Callable[[], Sequence[Entry]]) -> None:
        self._title, self._entries = title, entries

    def run(self) -> None:
        """Show the menu on an alternate screen."""
        say(ENTER_SCREEN)
        try:
            at = 0
            while True:
                entries = self._entries()
                at = min(at, len(entries) - 1)
                at = self._chosen(entries, at)
                say(CLEAR)
                try:
                    entries[at][1]()
                except KeyboardInterrupt:
                    continue
        except Quit:
            pass
        finally:
            say(LEAVE_SCREEN)

    def _chosen(self, entries: Sequence[Entry], at: int) -> int:
        with keys() as key:
            while True:
                lines = [
                    f"{REVERSE if number == at else ''}  {text}  {PLAIN}"
                    for number, (text, _) in enumerate(entries)
                ]
                say(CLEAR + self._title + "\n\n" + "\n".join(lines) + "\n")
                pressed = key()
                if pressed in CHOOSE:
                    return at
                if pressed in (END, INTERRUPT, "q"):
                    raise Quit
                at = moved(pressed, at, len(entries))


def say(text: str) -> None:
    """Write to the terminal at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def wait() -> None:
    """Wait for Enter."""
    say("\nEnter returns to the menu. ")
    if not sys.stdin.readline():
        raise Quit
