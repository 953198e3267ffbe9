"""The time in which set-up has the server stopped: as short as it can be, and never for ever.

What may refuse is tried before. A call that fails afterwards starts again what it stopped, and
says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from walt.common.errors import Unavailable, WaltError, in_words
from walt.server.tools.setup.machine import Machine
from walt.server.tools.setup.systemd import UNIT


class Server(Protocol):
    """The server as what starts it on a machine knows it. All raise WaltError, OSError."""

    def runs(self) -> bool:
        """Tell whether it runs, or is about to."""

    def stop(self) -> None:
        """End it; it is not started again before `start`."""

    def start(self) -> None:
        """Have it run."""

    def switch_off(self) -> None:
        """Keep it from starting with the machine; set-up switches it on again."""


@dataclass(frozen=True)
class UnitServer:
    """A server that systemd starts, where systemd runs."""

    machine: Machine

    def runs(self) -> bool:
        """See Server."""
        return self.machine.has_systemd and self.machine.succeeds(
            "systemctl", "--quiet", "is-active", UNIT
        )

    def stop(self) -> None:
        """See Server."""
        self.machine.run("systemctl", "stop", UNIT)

    def start(self) -> None:
        """See Server."""
        self.machine.run("systemctl", "start", UNIT)

    def switch_off(self) -> None:
        """See Server."""
        if self.machine.succeeds("systemctl", "--quiet", "is-enabled", UNIT):
            self.machine.run("systemctl", "--quiet", "disable", UNIT)


class Downtime:
    """See the module. One for each call of set-up: steps stop the server by `begin`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.stopped = False  # by us

    def begin(self) -> None:
        """Stop the server, if it runs. Raises WaltError, OSError."""
        if self.server.runs():
            _say("the server stops")
            self.stopped = True
            self.server.stop()

    @contextmanager
    def limited(self, *, stays_stopped: bool = False) -> Iterator[None]:
        """Have the server run again when all is done, or when it fails or is interrupted.

        `stays_stopped`: only when it fails. Raises what the body raises, with words about the
        server.
        """
        try:
            yield
        except KeyboardInterrupt:
            self._end()
            raise
        except (WaltError, OSError) as error:
            told = self._end()
            if not told:
                raise
            raise Unavailable(f"{in_words(error)}\n{told}") from None
        if self.stopped and not stays_stopped and not self.server.runs():
            self.server.start()

    def _end(self) -> str:
        """Start again what was stopped; return what is to be told of it."""
        try:
            if not self.stopped:
                return ""
            if not self.server.runs():
                _say("the server starts again")
                self.server.start()
        except (WaltError, OSError) as error:
            return f"The server was stopped for this, and does not start again: {in_words(error)}"
        return "The server was stopped for this; it runs again."


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone, and the server must not stay stopped
        print(text, flush=True)
