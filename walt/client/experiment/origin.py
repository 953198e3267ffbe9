"""Where a file comes from."""

from __future__ import annotations

import subprocess

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from pathlib import Path


def commit_of(file: Path) -> str | None:
    """Return the git commit of the folder of a file, None without one.

    It ends with "-dirty" where files that git knows are others than those of the commit.
    """
    try:
        found = subprocess.run(
            ["git", "-C", str(file.resolve().parent), "describe", "--always", "--dirty",
             "--abbrev=40", "--exclude=*"],
            capture_output=True, timeout=10, check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.decode().strip() or None
