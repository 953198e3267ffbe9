"""Space that is kept for the commands which free space.

podman writes before it removes: it notes what it is about to do in a database and in lists
that it writes anew. On a full disk, it could not remove anything.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import Logger

from walt.common.errors import CommandFailed
from walt.server.adapters.podman.options import Storage
from walt.server.runtime.process import ProcessRunner

_log = Logger()

SIZE = 8 << 20  # bytes; lists of thousands of layers have one or two million
PATIENCE = 30.0  # seconds


class Reserve:
    """A file whose space is taken; a server's own storage alone has one."""

    def __init__(self, runner: ProcessRunner, storage: Storage) -> None:
        self._runner = runner
        self._file: Path | None = None if storage.root is None else storage.root.parent / "reserve"
        self._place = storage.graph_root

    async def fill(self) -> None:
        """Take the space, unless it is taken or there is none."""
        file = self._file
        if file is None or not file.parent.is_dir() or _space_of(file) >= SIZE:
            return
        try:
            await self._runner.run(
                ["fallocate", "--length", str(SIZE), "--", str(file)], timeout=PATIENCE
            )
        except CommandFailed as error:
            _log.warn("no space is kept for podman: {error}", error=str(error))

    async def spend(self) -> None:
        """Give the space back at once: that of a removed file comes back later (XFS)."""
        if self._file is not None and self._file.exists():
            await self._runner.run(
                ["truncate", "--size", "0", "--", str(self._file)], timeout=PATIENCE
            )

    def needed(self) -> bool:
        """Tell whether the file system of the storage has less than is kept."""
        try:
            found = os.statvfs(self._place)
        except OSError:
            return False
        return found.f_bavail * found.f_frsize < SIZE or found.f_favail == 0


def _space_of(file: Path) -> int:
    """Return the bytes that a file has on the disk."""
    try:
        return file.stat().st_blocks * 512  # stat(2): blocks of 512 bytes
    except FileNotFoundError:
        return 0
