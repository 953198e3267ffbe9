"""The replay on a terminal: the source around the position, a line of state, one of input."""

from __future__ import annotations

import curses
import os
from contextlib import suppress

from walt.server.trackexec.session import Refused, Session

PROMPTS = "bjf/"  # commands that take words: their key opens a line of input
LONGEST = 200  # characters of input
ESCAPE = 27


class Screen:
    """Draws a session and takes its keys."""

    def __init__(self, session: Session, window: curses.window) -> None:
        self._session = session
        self._window = window
        self._top = 0  # the first line that is shown
        self._message = "h shows the commands"
        self._show_position()

    def run(self) -> None:
        """Take keys until `q`."""
        curses.curs_set(0)
        self._window.keypad(True)
        while True:
            self._draw()
            key = self._window.getch()
            if key == ord("q"):
                return
            page = max(self._window.getmaxyx()[0] - 3, 1)
            moves = {
                curses.KEY_UP: -1, curses.KEY_DOWN: 1, curses.KEY_PPAGE: -page,
                curses.KEY_NPAGE: page,
            }
            if key in moves:
                self._scroll(moves[key])
            elif 0 < key < 256 and chr(key) in PROMPTS:
                line = self._input(chr(key))
                if line is not None:
                    self._obey(line)
            elif 0 < key < 256 and chr(key).isprintable():
                self._obey(chr(key))

    def _obey(self, line: str) -> None:
        shown = self._session.shown
        try:
            self._message = self._session.run(line)
        except Refused as error:
            self._message = str(error)
            return
        if line[:1] == "f":
            self._top = 0
        elif line[:1] != "b" or self._session.shown is not shown:
            self._show_position()

    def _show_position(self) -> None:
        height = self._window.getmaxyx()[0]
        self._top = max(0, self._session.replay.line - 1 - height // 2)

    def _scroll(self, lines: int) -> None:
        shown = self._session.shown
        last = len(shown.lines) - 1 if shown else 0
        self._top = min(max(0, self._top + lines), max(0, last))

    # -- drawing -----------------------------------------------------------------

    def _draw(self) -> None:
        height, width = self._window.getmaxyx()
        self._window.erase()
        message = [visible(line) for line in self._message.splitlines()] or [""]
        message = message[: max(1, height - 3)]
        rows = height - 1 - len(message)
        shown, replay = self._session.shown, self._session.replay
        if shown is not None:
            here = replay.line if shown is replay.source else 0
            marked = self._session.breakpoints(shown.number)
            for row in range(rows):
                number = self._top + row + 1
                if number > len(shown.lines):
                    break
                mark = ("*" if number in marked else " ") + (">" if number == here else " ")
                text = f"{mark}{number:5} {visible(shown.text(number))}"
                self._put(row, text, width, curses.A_REVERSE if number == here else 0)
        file = f" [{shown.short}]" if shown is not None and shown is not replay.source else ""
        self._put(rows, self._session.position + file, width, curses.A_BOLD)
        for row, text in enumerate(message, rows + 1):
            self._put(row, text, width, 0)
        self._window.refresh()

    def _put(self, row: int, text: str, width: int, attribute: int) -> None:
        # The last cell of a window cannot be written without an error.
        with suppress(curses.error):
            self._window.addnstr(row, 0, text.expandtabs(), max(width - 1, 0), attribute)

    # -- input -------------------------------------------------------------------

    def _input(self, start: str) -> str | None:
        """Return a line that begins with a key; None when it was given up."""
        text = start if start == "/" else start + " "
        while True:
            height, width = self._window.getmaxyx()
            self._window.move(height - 1, 0)
            self._window.clrtoeol()
            self._put(height - 1, text + "_", width, 0)
            key = self._window.getch()
            if key in (10, 13, curses.KEY_ENTER):
                return text
            if key == ESCAPE or (key in (8, 127, curses.KEY_BACKSPACE) and len(text) <= 1):
                return None
            if key in (8, 127, curses.KEY_BACKSPACE):
                text = text[:-1]
            elif key == 9 and start == "f":
                text = self._completed(text)
            elif 32 <= key < 127 and len(text) < LONGEST:
                text += chr(key)

    def _completed(self, text: str) -> str:
        """Complete the end of a path: with the one file that holds it, or what all have."""
        typed = text[2:]
        found = [file for file in self._session.files() if typed in file]
        if len(found) == 1:
            return "f " + found[0]
        tails = {file[file.index(typed):] for file in found} or {typed}
        size = len(typed)
        while size < len(min(tails)) and len({tail[: size + 1] for tail in tails}) == 1:
            size += 1
        return "f " + min(tails)[:size]


def visible(text: str) -> str:
    """Return a text without what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in text)


def show(session: Session) -> None:
    """Show a session on the terminal until the person quits."""
    os.environ.setdefault("ESCDELAY", "25")
    curses.wrapper(lambda window: Screen(session, window).run())
