"""The tree of links that nodes follow to their exports, on a file system of its own.

A handle of NFS names an inode of a file system, whatever was exported of it: what all nodes
can read therefore lies on a tmpfs that holds these links and nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from walt.server.runtime.process import ProcessRunner

_NEW = ".new-link"
_OPTIONS = "size=64m,mode=0755,nosuid,nodev,noexec"

Tree = Mapping[str, Mapping[str, str]]


class LinkTree:
    """Directories of links below `root`, a tmpfs between `mount` and `unmount`."""

    def __init__(self, runner: ProcessRunner, root: Path) -> None:
        self._runner = runner
        self._root = root
        self._present: dict[str, dict[str, str]] = {}

    async def mount(self) -> None:
        """Make an empty tree; one that a killed server left is dropped. Raises CommandFailed."""
        await self.unmount()
        self._root.mkdir(parents=True, exist_ok=True)
        await self._runner.run(
            ["mount", "-t", "tmpfs", "-o", _OPTIONS, "walt-nfs-links", str(self._root)]
        )

    async def unmount(self) -> None:
        """Remove the tree."""
        self._present = {}
        while os.path.ismount(self._root):
            await self._runner.run(["umount", "--lazy", str(self._root)])
        if self._root.is_dir():
            self._root.rmdir()

    def apply(self, tree: Tree) -> None:
        """Make the tree what `tree` tells: names and targets of each directory (`""`: the top).

        Costs what changed. A link that changes its target is replaced, never absent.
        """
        for directory in self._present.keys() - tree.keys():
            shutil.rmtree(self._root / directory)
            del self._present[directory]
        for directory, links in tree.items():
            present = self._present.get(directory)
            if present is None:
                (self._root / directory).mkdir(exist_ok=True)
                present = self._present[directory] = {}
            if present != links:
                self._change(self._root / directory, present, links)
                self._present[directory] = dict(links)

    @staticmethod
    def _change(place: Path, present: Mapping[str, str], links: Mapping[str, str]) -> None:
        for name in present.keys() - links.keys():
            (place / name).unlink()
        for name, target in links.items():
            if present.get(name) != target:
                (place / _NEW).symlink_to(target)
                os.rename(place / _NEW, place / name)
