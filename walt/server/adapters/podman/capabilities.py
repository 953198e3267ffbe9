"""File capabilities, which NFS does not carry: programs that have some would have none on nodes.

They become set-user-id programs of root instead: as before file capabilities were common.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from walt.server.adapters.podman.imageroot import ImageRoot
from walt.server.adapters.podman.walk import walk

Say = Callable[[str], None]

ATTRIBUTE = "security.capability"  # xattr(7)
PLACES = ("/usr", "/bin", "/sbin", "/lib", "/opt")
# Directories of many files and no programs.
PASSED_OVER = frozenset(("share", "include", "src", "modules", "firmware", "dist-packages"))
_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def replace(root: ImageRoot, say: Say) -> None:
    """Make programs with capabilities set-user-id; tell which. Raises OSError.

    What does not belong to root stays as it is: it would become somebody else.
    """
    for place in PLACES:
        if root.kind(place) == "directory":
            with root.directory(place) as found:
                _replace_below(found, place, say)


def _replace_below(top: int, place: str, say: Say) -> None:
    for directory, here, names in walk(top, PASSED_OVER):
        for name in names:
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode) or not found.st_mode & _EXECUTABLE:
                continue
            if found.st_mode & stat.S_ISUID or not _has_some(here, name):
                continue
            path = os.path.normpath(f"{place}/{directory}/{name}")
            if found.st_uid != 0:
                say(f"{path} has capabilities, which nodes do not see: it works without them")
                continue
            # The name is of a file that nobody else changes meanwhile: nodes may only read.
            os.chmod(name, stat.S_IMODE(found.st_mode) | stat.S_ISUID, dir_fd=here)
            say(f"{path} has capabilities, which nodes do not see: it is set-user-id root there")


def _has_some(here: int, name: str) -> bool:
    try:
        os.getxattr(f"/proc/self/fd/{here}/{name}", ATTRIBUTE, follow_symlinks=False)
    except OSError:
        return False
    return True
