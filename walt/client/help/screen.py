"""The terminal of the pager: alternate screen, raw keys, drawing (ECMA-48, xterm's ctlseqs)."""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import Any, Callable, Collection, Optional

from walt.client.help.keys import Keys
from walt.client.help.pager import Frame, Pager
from walt.client.help.render import (
    ASCII,
    BOLD,
    CODE,
    DIM,
    ITALIC,
    LINK,
    REVERSE,
    TITLE,
    UNICODE,
    Signs,
)
from walt.client.help.text import clean
from walt.client.terminal import RawMode, window

# The wheel sends arrow keys (1007): text can still be selected with the mouse. Its mode
# before is saved and restored, as other programs rely on it.
_ENTER = "\033[?1049h\033[?1007s\033[?1007h\033[?25l"
_LEAVE = "\033[?1007r\033[?25h\033[?1049l"
_ANSI = ("xterm", "screen", "tmux", "rxvt", "linux", "vt220")

_LOOKS = {
    BOLD: "1", ITALIC: "3", CODE: "36", TITLE: "1;35", LINK: "4;32", DIM: "2", REVERSE: "7",
}
_WITHOUT_COLOURS = {LINK: "4", REVERSE: "7"}  # what shows where one is


class Screen:
    """The terminal at the standard input and output, while the pager has it."""

    def __init__(self, colours: bool = True) -> None:
        self._looks = _LOOKS if colours else _WITHOUT_COLOURS
        self._raw = RawMode()
        self._shown: list[bytes] = []
        self._before: Any = None
        self._wake: tuple[int, int] = (-1, -1)

    def __enter__(self) -> Screen:
        self._wake = os.pipe()
        self._raw.__enter__()
        try:
            self._before = signal.signal(signal.SIGWINCH, self._resized)
            self._write(_ENTER.encode())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: Any) -> None:
        try:
            # Where there is no alternate screen, the prompt comes below the page.
            self._write(f"\033[0m\033[{window()[0]};1H\033[K{_LEAVE}".encode())
        except OSError:  # the terminal is gone
            pass
        finally:
            self._raw.__exit__()
            signal.signal(signal.SIGWINCH, self._before or signal.SIG_DFL)
            for descriptor in self._wake:
                os.close(descriptor)

    def _resized(self, number: int, frame: object) -> None:
        os.write(self._wake[1], b"w")

    def read(self) -> Optional[bytes]:
        """Return what is typed, empty at the end of input, None when the window changed."""
        ready = select.select([0, self._wake[0]], [], [])[0]
        if self._wake[0] in ready:
            os.read(self._wake[0], 4096)
            self._shown = []
            return None
        return os.read(0, 4096)

    def draw(self, frame: Frame) -> None:
        """Show these rows; only those that changed are written."""
        rows = [b"".join(self._paint(piece.text, piece.style) for piece in row) for row in frame]
        parts = []
        if len(self._shown) != len(rows):
            parts.append(b"\033[0m\033[2J")
            self._shown = len(rows) * [b""]
        for number, row in enumerate(rows):
            if row != self._shown[number]:
                parts.append(b"\033[%d;1H\033[K%s" % (number + 1, row))
        self._shown = rows
        self._write(b"".join(parts))

    def _paint(self, text: str, style: int) -> bytes:
        raw = text.encode(sys.stdout.encoding or "ascii", "replace")
        looks = ";".join(look for bit, look in self._looks.items() if style & bit)
        return b"\033[%sm%s\033[0m" % (looks.encode(), raw) if looks else raw

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(1, data):]


def capable() -> bool:
    """Tell whether the terminal places text where it is told to (TERM, terminfo)."""
    name = os.environ.get("TERM", "")
    try:
        import curses
    except ImportError:  # a Python built without it
        return name.split("-")[0] in _ANSI
    try:
        curses.setupterm(name)
    except curses.error:  # terminfo does not know it
        return name.split("-")[0] in _ANSI
    return (curses.tigetstr("cup") or b"").startswith(b"\033[")


def page(topic: str, topics: Collection[str], read: Callable[[str], str]) -> None:
    """Show a topic, and those that the reader goes to, until the reader quits.

    `topics` are the topics there are, `read` gives the Markdown of one. Raises
    KeyboardInterrupt for ctrl-C, SystemExit when the process is told to end.
    """
    sys.stdout.flush()
    if not capable():
        print(clean(read(topic)))
        return
    pager = Pager(topic, topics, read, _signs())
    keys = Keys(lambda: pager.typing)
    with Screen(not os.environ.get("NO_COLOR")) as screen:
        while True:
            pager.resize(*window())
            screen.draw(pager.frame())
            data = screen.read()
            if data == b"":
                return
            for key in keys.feed(data or b""):
                if not pager.key(key):
                    return


def _signs() -> Signs:
    try:
        "".join(UNICODE).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ASCII
    return UNICODE
