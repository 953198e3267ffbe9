"""What `walt log export` prints."""

from __future__ import annotations

import sys

from walt.client.errors import Failure
from walt.client.operations import log_export
from walt.client.operations.history import parse_range
from walt.client.session import Session
from walt.client.terminal import WHEEL, Terminal, both_terminals, clean_up_at_signals
from walt.client.visible import own

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any


def export(query: dict[str, Any], history: str, format: str, path: str) -> int:
    """Write the lines of a range; the file appears when it is whole."""
    if history.lower() == "none":
        raise Failure("there is nothing to export from the history range 'none'")
    session = Session(Terminal())
    query["start"], query["end"] = parse_range(session, history)
    session.close()
    clean_up_at_signals()
    sys.stdout.flush()  # the file may be the standard output itself
    wheel = Wheel()
    try:
        count = log_export.export(query, format, path, wheel.turn)
    finally:
        wheel.erase()
    told = f"{count} log lines were written to {path}."
    print(told, file=sys.stdout if log_export.open_already(path) is None else sys.stderr)
    return 0


class Wheel:
    """A line that turns with the number of lines so far; nothing without a terminal."""

    def __init__(self) -> None:
        self._shown = both_terminals()
        self._turns = 0

    def turn(self, count: int) -> None:
        """Show a number of lines."""
        if self._shown:
            self._turns += 1
            own(f"\rExporting... {WHEEL[self._turns % 4]} {count} lines")
            sys.stdout.flush()

    def erase(self) -> None:
        """Remove the line."""
        if self._turns:
            own("\r" + " " * 50 + "\r")
            sys.stdout.flush()
