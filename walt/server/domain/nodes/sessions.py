"""Commands and shells on nodes (spec server §7.6, requests 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from zope.interface import Interface


class Terminal(NamedTuple):
    """The terminal of a client: type and size."""

    term: str
    rows: int
    columns: int


class ISession(Interface):
    """A program whose input and output belong to a client."""

    def write(data: bytes) -> None:
        """Give input."""

    def end_of_input() -> None:
        """No more input."""

    def resize(rows: int, columns: int) -> None:
        """The client's window changed (no effect without terminal)."""

    def throttle(client: Any) -> None:
        """Pause and resume `client` (IPushProducer) while the program is late in reading."""

    def pause() -> None:
        """Stop reading the program's output: the client is late."""

    def resume() -> None:
        """Read its output again."""

    def close() -> None:
        """End the program: the client is gone."""


class ISessions(Interface):
    """Starts sessions."""

    def node_command(
        ip: str, command: str, *, node_terminal: bool, terminal: Terminal | None,
        output: Callable[[bytes], None], errors: Callable[[bytes], None],
        ended: Callable[[int], None],
    ) -> ISession:
        """Run a command on a node by ssh as root; an empty command is a login shell.

        With `terminal`, the ssh client runs in a pseudo-terminal of that size
        and everything it prints goes to `output`; `node_terminal` asks ssh for
        a terminal on the node. `ended` gets the exit status.
        """

    def ping(
        ip: str, *, output: Callable[[bytes], None], errors: Callable[[bytes], None],
        ended: Callable[[int], None],
    ) -> ISession:
        """Ping an address ten times."""

    def program(
        argv: Sequence[str], *, terminal: Terminal | None, output: Callable[[bytes], None],
        errors: Callable[[bytes], None], ended: Callable[[int], None],
    ) -> ISession:
        """Run a program of the server, on the host's network."""

    def device_shell(
        ip: str, user: str, *, terminal: Terminal | None, output: Callable[[bytes], None],
        errors: Callable[[bytes], None], ended: Callable[[int], None],
    ) -> ISession:
        """Open a shell on a device that is not a node, by ssh, whatever its host key."""
