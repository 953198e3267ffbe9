"""What sends calls to the server: for annotations alone."""

from __future__ import annotations

from typing import Any, Protocol


class Calls(Protocol):
    """A session of a command, or the link of a script."""

    def call(self, command: str, /, **arguments: Any) -> dict[bytes, bytes]:
        """Return the answer of a command as a dict of bytes. Raises Failure, Refused."""

    def json(self, command: str, name: str, /, **arguments: Any) -> Any:
        """Return one JSON value of the answer of a command."""
