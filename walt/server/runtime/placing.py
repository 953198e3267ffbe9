"""Files that programs make, and that nobody makes a second time: keys."""

from __future__ import annotations

from pathlib import Path

from walt.server.runtime.process import ProcessRunner


async def put_in_place(runner: ProcessRunner, beside: Path, path: Path) -> None:
    """Rename a file once the disk has it, and return when the disk has its name, too.

    It is whole or not there if the power fails meanwhile: else some file systems have an empty
    file of the new name then. sync(1) waits in our place: a disk may take seconds. Raises
    CommandFailed, Unavailable.
    """
    await runner.run(["sync", "--", str(beside)])
    beside.rename(path)
    await runner.run(["sync", "--", str(path.parent)])
