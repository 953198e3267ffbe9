"""The processes of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.process import ProcessReader
from twisted.internet.task import deferLater

from tests.patience import patient


def processes() -> dict[int, str]:
    """Return the command lines of all processes."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # Other tests start programs with odd bytes.
            line = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        found[int(process.name)] = line
    return found


def commands() -> list[str]:
    """Return the command lines of all processes."""
    return list(processes().values())


async def pipes_closed(reactor: Any) -> None:
    """Wait until no pipe of a child is read any more: its service is done a moment earlier."""
    limit = reactor.seconds() + patient(10)
    while any(isinstance(one, ProcessReader) for one in reactor.getReaders()):
        if reactor.seconds() > limit:
            raise AssertionError("a child, or a child of it, keeps its pipes open")
        await deferLater(reactor, 0.01, lambda: None)
