"""The tree of node directories on disk (spec server §1.3, node-protocols §3.2).

At the first use the disk is read, and only the difference with the wanted tree
is applied, so that links which are right already never disappear (design D20).
Later differences are computed from memory; a contradiction makes it read the
disk again. Long work is cut into slices, deletions are left to `rm`.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator, deferLater
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import in_words
from walt.common.files import write_atomic
from walt.common.mounts import mounted_below
from walt.common.names import is_mac
from walt.server.domain.network_services.boot_tree import (
    PRESERVED,
    PROBING,
    BootTree,
    Change,
    JoinedTree,
    comparing,
    let_go,
)
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.runtime.coroutines import shielded, spawn
from walt.server.runtime.process import ProcessRunner

_log = Logger()

STATUS = "status.json"
MORE = "status.more"  # directories that were made since that was written, a line each
_DOOMED = ".doomed-"
_NEW = ".new-link"
_SLICE = 16  # entries between two looks at the clock
_NAMES = 512  # the same, of which nothing but the names is read
_MANY = 2048  # parts, of which nothing but the name of a directory is asked


def _compare(
    present: BootTree | JoinedTree, wanted: BootTree | JoinedTree, found: list[Change]
) -> Iterator[None]:
    found.append((yield from comparing(present, wanted)))


@implementer(IConfigurable)
class BootTreeStore:
    """Make the tree at `root` what `apply` is told.

    `clock` gives callLater (slices of work), `runner` runs `rm`.
    """

    def __init__(self, clock: IReactorTime, runner: ProcessRunner, root: Path) -> None:
        self._clock = clock
        self._root = root
        self._runner = runner
        self._cooperator = Cooperator(scheduler=lambda call: clock.callLater(0, call))
        self._lock = DeferredLock()
        self._wanted: BootTree | JoinedTree | None = None
        self._present: BootTree | JoinedTree | None = None
        self._found: dict[str, str] = {}  # links that were read from the disk
        self._doomed = 0
        self._aside: list[str] = []  # paths of what was put aside, and waits for its deletion
        self._outdated = False  # what is remembered
        self._deleting: set[Deferred[Any]] = set()

    def apply(self, tree: BootTree | JoinedTree) -> Deferred[None]:
        """Make `tree` the wanted one; fires when the disk holds it.

        Fails with OSError when the disk refuses (no space, no permission).
        """
        self._wanted = tree
        return Deferred.fromCoroutine(self._follow())

    def settled(self) -> Deferred[None]:
        """Return a Deferred that fires when no deletion is under way any more."""
        return DeferredList([
            shielded(deletion) for deletion in self._deleting
        ]).addCallback(lambda _: None)

    async def _follow(self) -> None:
        await self._lock.acquire()
        try:
            wanted = self._wanted  # the latest one: calls in between are merged
            if wanted is None or wanted is self._present:
                return
            if self._present is None:
                await self._read(wanted)
            try:
                await self._change(wanted)
            except OSError as error:
                _log.warn(
                    "the tree {root} is not as remembered ({error}): reading it again",
                    root=str(self._root), error=in_words(error),
                )
                await self._read(wanted)
                await self._change(wanted)
            self._present = wanted
            await self._pause()
            await self._cooperator.coiterate(let_go(self._found))
        finally:
            self._lock.release()

    async def _read(self, wanted: BootTree | JoinedTree) -> None:
        self._present = None
        dirs: set[str] = set()
        links = self._found = {}
        remembered = self._remembered()
        kept: set[str] = set()
        await self._cooperator.coiterate(self._scan(wanted, remembered, dirs, links, kept))
        self._present = BootTree(frozenset(dirs), links, frozenset(kept))
        self._delete_doomed()

    async def _change(self, wanted: BootTree | JoinedTree) -> None:
        assert self._present is not None
        found: list[Change] = []
        await self._cooperator.coiterate(_compare(self._present, wanted, found))
        await self._pause()
        (change,) = found
        if change:
            self._present, before = None, self._present
            await self._cooperator.coiterate(self._perform(change))
            self._present = before
            self._delete_doomed()
        # The next server reads of the directories alone what was remembered.
        if change.drop_dirs or not (self._root / STATUS).exists():
            self._outdated = True
        elif change.make_dirs and not self._outdated:
            self._remember_more(change.make_dirs)
        if self._outdated:
            await self._cooperator.coiterate(self._remember(wanted))

    def _pause(self) -> Deferred[None]:
        return deferLater(self._clock, 0)

    # What is on disk

    def _remembered(self) -> frozenset[str]:
        """Return the directories that the last server made for nodes."""
        found: list[object] = []
        with suppress(OSError, ValueError, KeyError, TypeError):
            found += json.loads((self._root / STATUS).read_text())["dirs"]
        with suppress(OSError, ValueError):
            found += (self._root / MORE).read_text().splitlines()
        return frozenset(name for name in found if isinstance(name, str) and is_mac(name))

    def _remember_more(self, dirs: Iterable[str]) -> None:
        """Add some to what is remembered: there are thousands of others."""
        try:
            with open(self._root / MORE, "a") as more:
                more.writelines(f"{name}\n" for name in dirs if is_mac(name))
        except OSError as error:
            _log.warn("{path}: {error}", path=str(self._root / MORE), error=in_words(error))
            self._outdated = True

    def _remember(self, tree: BootTree | JoinedTree) -> Iterator[None]:
        # Links tell themselves what they are, and which of them are wanted is known again.
        dirs: list[str] = []
        for number, part in enumerate(tree.parts.values()):
            if number % _MANY == 0:
                yield
            dirs += part.dirs
        try:
            write_atomic(self._root / STATUS, json.dumps({"dirs": dirs}))
            (self._root / MORE).unlink(missing_ok=True)
            self._outdated = False
        except OSError as error:  # it is written again at the next change; the links are there
            _log.warn("{path}: {error}", path=str(self._root / STATUS), error=in_words(error))
        (self._root / "status.pickle").unlink(missing_ok=True)  # of WalT 10, never read

    def _scan(
        self, wanted: BootTree | JoinedTree, remembered: frozenset[str], dirs: set[str],
        links: dict[str, str], kept: set[str],
    ) -> Iterator[None]:
        """Read the tree, move obsolete layouts, put aside what does not belong there."""
        self._root.mkdir(parents=True, exist_ok=True)
        entries = []
        for entry in os.scandir(self._root):  # all, before any is put aside
            entries.append(entry)
            if len(entries) % _NAMES == 0:
                yield
        for number, entry in enumerate(entries):
            if number % _SLICE == 0:
                yield
            name = entry.name
            if entry.is_symlink():
                links[name] = os.readlink(entry.path)
            elif name.startswith(_DOOMED):
                self._aside.append(entry.path)  # of a former server
            elif name in (STATUS, MORE):
                continue
            elif entry.is_dir() and (is_mac(name) or name == PROBING):
                part = wanted.at(name)
                self._scan_node(name, part, links, kept)
                # One that nobody remembers may hold data of a person: it stays.
                if name in part.dirs or name in remembered:
                    dirs.add(name)
            else:
                self._put_aside(self._root / name)

    def _scan_node(
        self, name: str, wanted: BootTree, links: dict[str, str], kept: set[str]
    ) -> None:
        directory = self._root / name
        persist = directory / "persist"
        if persist.is_dir() and not persist.is_symlink():
            os.rename(persist, directory / "persist_dir")
        owner = wanted.owners.get(name)
        if owner is not None and (directory / "persist_dir").is_dir():
            self._move_persist(directory, owner)
        for entry in os.scandir(directory):
            if entry.is_symlink():
                links[f"{name}/{entry.name}"] = os.readlink(entry.path)
            elif entry.name not in PRESERVED:
                self._put_aside(directory / entry.name)
        if f"{name}/persist_dirs" not in links:  # else what is below it is elsewhere
            kept.update(
                path for path in wanted.kept
                if path.startswith(f"{name}/") and (self._root / path).is_dir()
            )

    @staticmethod
    def _move_persist(directory: Path, owner: str) -> None:
        target = directory / "persist_dirs" / owner
        target.parent.mkdir(exist_ok=True)
        try:
            os.rename(directory / "persist_dir", target)
        except OSError as error:  # the owner has newer data there: both stay
            _log.warn("{path} stays: {error}", path=str(directory), error=in_words(error))

    # Changes

    def _perform(self, change: Change) -> Iterator[None]:
        count = 0
        for link in change.drop_links:
            self._drop_link(self._root / link)
            count += 1
            if count % _SLICE == 0:
                yield
        for name in change.drop_dirs:
            self._put_aside(self._root / name)
        yield
        for name in change.make_dirs:
            # What root of a node puts into its persistent directory is for no other account.
            mode = 0o700 if os.path.basename(name) == "persist_dirs" else 0o755
            (self._root / name).mkdir(mode=mode, exist_ok=True)
            count += 1
            if count % _SLICE == 0:
                yield
        for link, target in change.set_links:
            self._set_link(self._root / link, target)
            count += 1
            if count % _SLICE == 0:
                yield
        yield

    @staticmethod
    def _drop_link(path: Path) -> None:
        try:
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                raise FileExistsError(f"{path} should be a symbolic link")
        except FileNotFoundError:
            return
        path.unlink()

    @staticmethod
    def _set_link(path: Path, target: str) -> None:
        try:
            os.symlink(target, path)
        except FileExistsError:
            # Replaced by a rename, so that a node reading it always finds a link.
            beside = path.with_name(_NEW)
            beside.unlink(missing_ok=True)
            os.symlink(target, beside)
            os.rename(beside, path)

    def _put_aside(self, path: Path) -> None:
        while True:
            self._doomed += 1
            aside = self._root / f"{_DOOMED}{os.getpid()}-{self._doomed}"
            if not os.path.lexists(aside):  # a former server may have had the same number
                break
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return
        self._aside.append(str(aside))

    def _delete_doomed(self) -> None:
        doomed, self._aside = self._aside, []
        if doomed:
            deleting = spawn(self._delete(doomed), "deleting old node directories")
            self._deleting.add(deleting)
            deleting.addBoth(lambda _: self._deleting.discard(deleting))

    async def _delete(self, doomed: list[str]) -> None:
        # Persistent data that is mounted there goes with its node, whoever still uses it.
        points = [str(point) for path in doomed for point in mounted_below(Path(path))]
        if points:
            # One that is not mounted any more is no fault; one that stays is that of rm.
            await self._runner.run(["umount", "--lazy", "--", *points], check=False)
        await self._runner.run(
            ["rm", "-rf", "--one-file-system", "--", *doomed], timeout=3600.0
        )
