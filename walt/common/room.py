"""Room on the disks of a server: PostgreSQL stops where there is none, so some is left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from walt.common.errors import LimitExceeded

RESERVE = 256 << 20  # bytes


def room(directory: Path) -> int:
    """Return how many bytes may still be written below a directory."""
    return max(0, shutil.disk_usage(directory).free - RESERVE)


def check_room(directory: Path, size: int) -> None:
    """Raise LimitExceeded unless so many bytes may be written below a directory."""
    left = room(directory)
    if size > left:
        raise LimitExceeded(
            "the server has not the room on its disk for this:"
            f" it takes {size >> 20} MiB, and {left >> 20} MiB are left"
        )
