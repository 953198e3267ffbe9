"""The processes of this machine."""

from __future__ import annotations

from pathlib import Path


def processes() -> dict[int, str]:
    """Return the command lines of all processes."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        found[int(process.name)] = line
    return found


def commands() -> list[str]:
    """Return the command lines of all processes."""
    return list(processes().values())
