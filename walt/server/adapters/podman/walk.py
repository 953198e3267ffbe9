"""Walks through the directories of an image, however deep they are."""

from __future__ import annotations

import os
from collections.abc import Iterator

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(
    top: int, passed_over: frozenset[str] = frozenset()
) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the path, a descriptor, and the names of what is no directory, of each directory.

    Paths start with `.`, the directory of the descriptor `top`; descriptors are open until
    the next step. No link is followed; directories whose names are in `passed_over` are left
    out. Raises OSError, for directories deeper than any path may lead, too. (os.fwalk
    calls itself for each level, which ends in the middle at some 1,000 of them.)
    """
    pending = ["."]
    while pending:
        path = pending.pop()
        here = os.open(path, _FLAGS, dir_fd=top)
        try:
            with os.scandir(here) as found:
                entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
            yield path, here, [name for name, inner in entries if not inner]
        finally:
            os.close(here)
        pending.extend(
            f"{path}/{name}" for name, inner in entries if inner and name not in passed_over
        )
