"""The wheel of this release, made once by a child process."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet.defer import DeferredLock

from walt.server.runtime.process import ProcessRunner, own_code
from walt.server.tools.client_wheel import NAME


class ClientPackage:
    """Makes the wheel in `directory` when a client asks for it first."""

    def __init__(self, runner: ProcessRunner, directory: Path) -> None:
        self._runner = runner
        self._directory = directory
        self._making = DeferredLock()
        self._path: Path | None = None

    async def piece(self, offset: int, length: int) -> tuple[str, int, bytes]:
        """Return its name, its size and `length` bytes (less at its end). Raises CommandFailed."""
        path = await self._wheel()
        with path.open("rb") as stream:
            stream.seek(offset)
            return path.name, path.stat().st_size, stream.read(length)

    async def _wheel(self) -> Path:
        async with self._making:
            if self._path is None:
                await self._runner.run([
                    sys.executable, "-m", "walt.server.tools.client_wheel", str(self._directory),
                ], timeout=120, env=own_code())
                self._path = self._directory / NAME
            return self._path
