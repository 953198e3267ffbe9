"""The step about what the server tells the kernel's NFS server."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from walt.common.errors import Unavailable
from walt.server.adapters.nfs.kernel import DIRECTORY, IMAGE_EXPORTS, PERSIST_EXPORTS
from walt.server.tools.setup.machine import Machine


@dataclass(frozen=True)
class ExportsStep:
    """The server writes its exports itself; they go with it, for a server that died has left some.

    Debian's packages have no directory for them: the server makes it.
    """

    machine: Machine
    title: str = "exports of NFS"

    def lacks(self) -> list[str]:
        """Tell nothing: see above."""
        return []

    def apply(self) -> None:
        """Do nothing: see above."""

    def undo(self) -> None:
        """See Step."""
        directory = self.machine.at(DIRECTORY)
        files = [directory / name for name in (IMAGE_EXPORTS, PERSIST_EXPORTS)]
        there = [file for file in files if file.exists()]
        for file in there:
            file.unlink()
        if not there:
            return
        if not any(directory.iterdir()):
            directory.rmdir()
        if self.machine.has_systemd:
            with suppress(Unavailable):  # where its package has gone, nothing is exported
                self.machine.run("exportfs", "-r", "-f")
