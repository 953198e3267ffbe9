"""Shells of nodes that are this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from walt.client.experiment.channels import NO_FILE, NOTHING
from walt.client.scripting.running import Result


class LocalShells:
    """Runs commands by a function of the test; files of nodes are files here."""

    def __init__(self, run: Callable[[str, str, float], Result]) -> None:
        self._run = run

    def run(self, node: str, command: str, limit: float) -> Result:
        """Run a command."""
        return self._run(node, command, limit)

    def fetch(
        self, node: str, path: str, write: Callable[[bytes], object], limit: float
    ) -> int:
        """Give a file."""
        if not os.path.isfile(path):
            return NO_FILE if os.path.exists(path) else NOTHING
        write(Path(path).read_bytes())
        return 0

    def close(self) -> None:
        """There is nothing to leave."""
