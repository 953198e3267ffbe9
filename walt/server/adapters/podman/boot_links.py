"""Links below /boot, made to lead where they lead in the image.

TFTP follows them with another root directory: an absolute one would start there, and one
with more `..` than directories above it would leave the image.
"""

from __future__ import annotations

import os
from contextlib import suppress

from walt.server.adapters.podman.imageroot import ImageRoot

MAX_LINKS = 10_000  # of the directories that links below /boot lead to


class BootLinks:
    """The links on all ways that start in /boot of one image."""

    def __init__(self, root: ImageRoot) -> None:
        self._root = root
        self._pending = ["/boot"] if root.kind("/boot") == "link" else root.links_below("/boot")
        self._seen: set[str] = set()
        self._directories = {"/boot"}

    def confine(self) -> None:
        """Change what would lead elsewhere. Raises ValueError when links had to be removed.

        A link stays as it is if it can: it may lead to a kernel that is replaced later. One
        that cannot be looked at, nor changed, is removed: no link may hide the next one.
        """
        removed, broken = 0, 0
        while self._pending:
            path = self._pending.pop()
            if path in self._seen:
                continue
            self._seen.add(path)
            target = self._root.read_link(path)
            if target is None:
                continue
            if len(self._seen) > MAX_LINKS:
                self._root.remove(path)
                removed += 1
                continue
            try:
                self._follow(path, self._confined(path, target))
            except OSError:
                self._root.remove(path)
                broken += 1
        if broken:
            raise ValueError(f"{broken} links below /boot that lead nowhere were removed")
        if removed:
            raise ValueError(f"{removed} links below /boot were removed: more than {MAX_LINKS}")

    def _confined(self, path: str, target: str) -> str:
        """Make a link relative and without ways out; return where it leads, by its words."""
        where = os.path.dirname(path)
        inside = os.path.normpath(os.path.join(where, target))
        words = [word for word in target.split("/") if word not in ("", ".")]
        climbs = len(words) - len(target_names(words))
        turns = ".." in target_names(words)
        if turns:
            # What is above depends on where the names before lead.
            with suppress(OSError):  # it may lead nowhere
                inside = self._root.real(path)
        if target.startswith("/") or turns or climbs > where.strip("/").count("/") + 1:
            self._root.link(path, os.path.relpath(inside, where))
        return inside

    def _follow(self, path: str, inside: str) -> None:
        """Look at the links on the way to a target, and at those below it."""
        parts = inside.split("/")[1:] if inside != "/" else []
        for count in range(1, len(parts) + 1):
            prefix = "/" + "/".join(parts[:count])
            if self._root.read_link(prefix) is not None:
                parent, name = os.path.split(prefix)
                self._pending.append(os.path.join(self._root.real(parent), name))
        try:
            real = self._root.real(path)
        except OSError:
            return
        if (real == "/" or self._root.kind(real) == "directory") and not self._is_known(real):
            self._directories.add(real)
            self._pending.extend(self._root.links_below(real))

    def _is_known(self, directory: str) -> bool:
        return any(os.path.commonpath((known, directory)) == known for known in self._directories)


def target_names(words: list[str]) -> list[str]:
    """Return the words of a relative target without the `..` it begins with."""
    count = 0
    while count < len(words) and words[count] == "..":
        count += 1
    return words[count:]
