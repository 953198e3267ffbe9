"""Files that say what runs: messages, process number, screen session."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from typing import TextIO

from walt.common.errors import Conflict


class Messages:
    """Writes one line a message; the texts of scripts cannot move the cursor of a terminal."""

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream = stream
        self._prefix = f"{prefix}: " if prefix else ""

    @classmethod
    def to(cls, path: Path | None, prefix: str) -> Messages:
        """Return messages to the end of a file or a terminal, None: standard error."""
        stream = sys.stderr if path is None else open(path, "a", encoding="utf-8")  # noqa: SIM115
        return cls(stream, prefix)

    def __call__(self, text: str) -> None:
        """Write a message."""
        shown = "".join(char if char.isprintable() else " " for char in text)
        try:
            print(f"{self._prefix}{shown}", file=self._stream, flush=True)
        except (OSError, UnicodeError):
            return  # the node matters more than who reads about it


class PidFile:
    """The number of this process, locked: a node runs once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise Conflict(f"this node runs already: see the process number in {path}") from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, b"%d\n" % os.getpid())

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


class ScreenFile:
    """The name of the screen session that shows the console, when there is one."""

    def __init__(self, path: Path) -> None:
        session = os.environ.get("STY", "")
        self._path = path if session else None
        if session:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{session}\n")

    def remove(self) -> None:
        """Remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
