"""Fakes of the archive of logs: weeks that are due, files that were written."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence

from zope.interface import implementer

from walt.common.errors import Unavailable
from walt.common.records import block_of
from walt.server.domain.logs.archive import (
    ArchivedFile,
    Owner,
    Part,
    Reading,
    StreamShare,
    Written,
)
from walt.server.domain.logs.interfaces import IArchiveReader, IArchiveRecords, ILogArchive
from walt.server.domain.logs.merging import Placed

PLATFORM = "00000000-0000-0000-0000-000000000001"


def file_named(name: str, *streams: int) -> ArchivedFile:
    """Return a file with one line of each stream."""
    return ArchivedFile(
        name, len(streams), 100, 1, 1, 1, 1, {one: StreamShare(1, 1) for one in streams}
    )


@implementer(ILogArchive)
class FakeLogArchive:
    """Files by name; `errors` are raised by the next calls. `streams` are those of each week."""

    def __init__(self, *streams: int) -> None:
        self.streams = streams
        self.stored: dict[str, ArchivedFile] = {}
        self.errors: list[Exception] = []

    def _add(self, prefix: str, streams: Sequence[int]) -> list[ArchivedFile]:
        if self.errors:
            raise self.errors.pop(0)
        file = file_named(f"{prefix}-001.parquet", *streams)
        self.stored[file.name] = file
        return [file]

    async def write(self, part: Part, prefix: str, owner: Owner) -> Written:
        """Make a file."""
        return Written(self._add(prefix, self.streams), 1)

    async def rewrite(
        self, former: str, prefix: str, owner: Owner, streams: Sequence[int]
    ) -> Sequence[ArchivedFile]:
        """Make a file with the rest."""
        return self._add(prefix, [
            one for one in self.stored[former].streams if one not in streams
        ])

    async def remove(
        self, names: Sequence[str], prefixes: Sequence[str], owner: Owner
    ) -> None:
        """Remove files."""
        if self.errors:
            raise self.errors.pop(0)
        for name in list(self.stored):
            if name in names or name.startswith(tuple(f"{one}-" for one in prefixes)):
                del self.stored[name]

    async def problems(self, files: Sequence[tuple[str, int]], owner: Owner) -> list[str]:
        """Return what is missing."""
        return [f"{name} is missing" for name, _ in files if name not in self.stored]

    def read(self, wanted: Reading) -> IArchiveReader:
        """Return a reader without lines."""
        return FakeArchiveReader()


@implementer(IArchiveReader)
class FakeArchiveReader:
    """Files without lines."""

    async def following(self, number: int) -> Placed:
        """There are none."""
        return Placed(block_of([]), array("q"), array("q"))

    async def count(self, number: int) -> int:
        """There are none."""
        return 0

    async def close(self) -> None:
        """Nothing is open."""


@implementer(IArchiveRecords)
class FakeArchiveRecords:
    """Weeks in `weeks`; `errors` are raised when the next ones are to be dropped."""

    def __init__(self, *weeks: Part) -> None:
        self.weeks = list(weeks)
        self.begun: list[str] = []
        self.kept: dict[str, ArchivedFile] = {}
        self.given_up: list[str] = []
        self.forgotten: set[int] = set()
        self.errors: list[Exception] = []
        self.retired: list[int] = []
        self.changed: set[str] = set()  # tables to which lines come while they are written
        self.in_doubt = False  # whether a commit is

    async def owner(self) -> Owner:
        """Return it."""
        return Owner(PLATFORM, bool(self.kept))

    async def due(self, days: int, but: Collection[str] = ()) -> Part | None:
        """Return the first."""
        return next((one for one in self.weeks if one.table not in but), None)

    async def begin(self, prefix: str) -> None:
        """Note it."""
        self.begun.append(prefix)

    async def abandoned(self) -> list[str]:
        """Return what was noted."""
        if self.in_doubt:
            raise Unavailable("in doubt")
        return list(self.begun)

    async def forget_attempt(self, prefix: str) -> None:
        """Forget it."""
        self.begun.remove(prefix)

    async def finish(self, part: Part, prefix: str, written: Written) -> bool:
        """Record files, drop a week."""
        if self.errors:
            raise self.errors.pop(0)
        if part.table in self.changed:
            return False
        self.weeks.remove(part)
        self.begun.remove(prefix)
        self.kept |= {one.name: one for one in written.files}
        return True

    async def retire(self, days: int) -> None:
        """Note it."""
        self.retired.append(days)

    async def gone(self) -> list[str]:
        """Return what was given up."""
        return list(self.given_up)

    async def removed(self, names: Sequence[str]) -> None:
        """Forget files."""
        self.given_up = [one for one in self.given_up if one not in names]

    async def with_forgotten(self) -> tuple[str, list[int]] | None:
        """Return one that has lines of `forgotten`."""
        for name, file in self.kept.items():
            if found := sorted(self.forgotten & set(file.streams)):
                return name, found
        return None

    async def replace(self, former: str, prefix: str, files: Sequence[ArchivedFile]) -> None:
        """Put files in the place of one."""
        del self.kept[former]
        self.given_up.append(former)
        self.begun.remove(prefix)
        self.kept |= {one.name: one for one in files}

    async def files(self) -> list[tuple[str, int]]:
        """Return all."""
        return [(name, file.size) for name, file in self.kept.items()]
