"""The tree of links that nodes follow to their exports, in a directory of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path

_NEW = ".new-link"
LOOKED_AT = 256  # links that may be right already, compared in one step

Tree = Mapping[str, Mapping[str, str]]


class LinkTree:
    """Directories of links below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._present: dict[str, Mapping[str, str]] | None = None

    def apply(self, tree: Tree, only: Collection[str] | None = None) -> Iterator[None]:
        """Make the tree what `tree` tells: names and targets of each directory (`""`: the top).

        The first time, what a former server left is read; then it costs what changed: `only`
        names the directories that may have, beside the top. A link that changes its target is
        replaced, never absent. The links of a directory, but for the top, are kept as they are
        told: who changes them tells of others. Each step is a link or a directory: who iterates
        may do other things in between.
        """
        if self._present is None:
            self._present, only = (yield from self._read()), None
        names = {*self._present, *tree} if only is None else {"", *only}
        for directory in [name for name in names if name not in tree and name in self._present]:
            shutil.rmtree(self._root / directory)
            del self._present[directory]
            yield
        for directory in names & tree.keys():
            links, known = tree[directory], self._present.get(directory)
            if known is None:
                (self._root / directory).mkdir(parents=True, exist_ok=True)
            if known is not links and (known is None or known != links):
                # As it is on disk at each moment, should it not come to its end.
                present = self._present[directory] = dict(known or {})
                yield from self._change(self._root / directory, present, links)
            if directory:
                self._present[directory] = links
            yield

    def _read(self) -> Generator[None, None, dict[str, Mapping[str, str]]]:
        """Return the links that are there; anything else is removed."""
        self._root.mkdir(parents=True, exist_ok=True)
        top: dict[str, str] = {}
        found: dict[str, Mapping[str, str]] = {"": top}
        with os.scandir(self._root) as entries:
            for entry in entries:
                if entry.is_symlink():
                    top[entry.name] = os.readlink(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    found[entry.name] = self._links_in(entry.path)
                else:
                    os.unlink(entry.path)
                yield
        return found

    @staticmethod
    def _links_in(directory: str) -> dict[str, str]:
        links = {}
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links[entry.name] = os.readlink(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        return links

    @staticmethod
    def _change(
        place: Path, present: dict[str, str], links: Mapping[str, str]
    ) -> Iterator[None]:
        gone = present.keys() - links.keys()
        yield
        for name in gone:
            (place / name).unlink()
            del present[name]
            yield
        for count, (name, target) in enumerate(links.items(), 1):
            if count % LOOKED_AT == 0:  # there are two names for each node
                yield
            if present.get(name) != target:
                try:
                    os.symlink(target, f"{place}/{name}")
                except FileExistsError:
                    (place / _NEW).unlink(missing_ok=True)
                    (place / _NEW).symlink_to(target)
                    os.rename(place / _NEW, place / name)
                present[name] = target
                yield

