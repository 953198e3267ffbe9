"""Write a week of log lines, write a file again, remove files. Blocking: for workers.

Files are read back before anybody relies on them. The manifest, which names all files with
their checksums, says whose archive this is: one of another platform is never touched.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyarrow

from walt.common.errors import Conflict, Denied, Unavailable, in_words
from walt.server.adapters.archive import parquet
from walt.server.adapters.archive.places import Place, place_of

MANIFEST = "manifest.json"
FORMAT = 1
Progress = Callable[[str], None]
# The columns of parquet.SCHEMA; times are epoch microseconds.
Line = tuple[int, str, str, str, "str | None", int, int, int]


class Week(Protocol):
    """All lines of a week, in their order: how many, the highest arrival, and themselves."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def mark(self) -> int:
        """The highest arrival."""

    @property
    def lines(self) -> Iterator[Line]:
        """Themselves."""


BROKEN = (OSError, pyarrow.ArrowException)


def _failed(target: str, error: BaseException) -> Unavailable:
    return Unavailable(f"the log archive {target} cannot be used: {in_words(error)[:500]}")


class Archive:
    """The files of one platform, and their manifest."""

    def __init__(self, place: Place, name: str, platform: str, has_files: bool) -> None:
        self.place, self.name = place, name
        self._platform, self._has_files = platform, has_files

    def manifest(self) -> dict[str, Any]:
        """Return it, a new one where there is none. Raises Conflict, Unavailable, OSError."""
        text = self.place.read(MANIFEST)
        if text is None and self._has_files:
            raise Unavailable(
                f"{MANIFEST} of the log archive {self.name} is missing: mount the disk it is on, or"
                " put back a copy"
            )
        if text is None:
            return {"format": FORMAT, "platform": self._platform, "files": {}}
        try:
            found: Any = json.loads(text)
            owner, files = found["platform"], found["files"]
            if found["format"] != FORMAT or not isinstance(files, dict):
                raise ValueError
        except (ValueError, LookupError, TypeError):
            raise Unavailable(
                f"{MANIFEST} of the log archive {self.name} is damaged or of a later version; put"
                " back a copy of it, or move it away and have a look at the files it names"
            ) from None
        if owner != self._platform:
            raise Conflict(
                f"the log archive {self.name} belongs to another platform; give this one a"
                " directory or prefix of its own: logs.archive.to of server.conf"
            )
        return dict(found)

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the files that the manifest names, at once."""
        manifest = self.manifest()
        change(manifest["files"])
        with self.place.created(MANIFEST) as file:
            file.write(json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")

    def store(
        self, prefix: str, tables: Iterator[pyarrow.Table], limit: int, progress: Progress
    ) -> list[dict[str, Any]]:
        """Write files with names that begin with `prefix`, read them back, put them down."""
        stored = []
        for number in itertools.count(1):
            first = next(tables, None)
            if first is None:
                break
            name = f"{prefix}-{number:03}.parquet"
            with self.place.created(name) as file:
                about = parquet.write(file, itertools.chain([first], tables), limit)
            self._verify(name, about, progress)
            stored.append({"name": name, **about})
        if stored:
            self.change(lambda files: files.update({
                one["name"]: {key: one[key] for key in _TOLD} for one in stored
            }))
        return stored

    def _verify(self, name: str, about: dict[str, Any], progress: Progress) -> None:
        if self.place.size(name) != about["size"]:
            raise Unavailable(f"{name} does not have the size that was written")
        with self.place.opened(name) as file:
            found = parquet.read_back(file, lambda: progress(name))
        if any(about[key] != value for key, value in found.items()):
            raise Unavailable(f"{name} does not have the lines that were written")


_TOLD = ("lines", "size", "sha256", "content", "first", "last")


def _archive(arguments: dict[str, Any]) -> Archive:
    return Archive(
        place_of(arguments["target"]), str(arguments["name"]), str(arguments["platform"]),
        bool(arguments["has_files"]),
    )


def _tables(lines: Iterator[Line], progress: Progress) -> Iterator[pyarrow.Table]:
    rows: list[Line] = []
    size = 0
    for row in lines:
        rows.append(row)
        size += len(row[3])
        if len(rows) >= parquet.GROUP or size >= parquet.GROUP_SIZE:
            yield parquet.table_of(rows)
            progress("lines")
            rows, size = [], 0
    if rows:
        yield parquet.table_of(rows)


def write(
    arguments: dict[str, Any], week: AbstractContextManager[Week], progress: Progress
) -> dict[str, Any]:
    """Write the lines of a week, and verify them.

    Return the files, and the highest arrival that was there. Raises Unavailable, Conflict.
    """
    archive = _archive(arguments)
    try:
        archive.manifest()
        with week as found:
            files = archive.store(
                arguments["prefix"], _tables(found.lines, progress),
                arguments["file_size"], progress,
            )
            if sum(one["lines"] for one in files) != found.count:
                raise Unavailable("the database gave another number of lines than it counted")
            return {"files": files, "mark": found.mark}
    except BROKEN as error:
        raise _failed(archive.name, error) from error


def rewrite(arguments: dict[str, Any], progress: Progress) -> list[dict[str, Any]]:
    """Write the file `former` again without the lines of `streams`; return the new files."""
    archive = _archive(arguments)
    gone = pyarrow.array(arguments["streams"], pyarrow.int32())
    try:
        with archive.place.opened(arguments["former"]) as file:
            reader = parquet.opened(file)
            kept = (
                parquet.without_streams(table, gone)
                for table in parquet.groups(reader, range(reader.num_row_groups))
            )
            return archive.store(
                arguments["prefix"], (one for one in kept if len(one)),
                arguments["file_size"], progress,
            )
    except BROKEN as error:
        raise _failed(archive.name, error) from error


def remove(arguments: dict[str, Any], progress: Progress) -> None:
    """Remove the files `names`, and those whose names begin with one of `prefixes`."""
    archive = _archive(arguments)
    prefixes = tuple(f"{one}-" for one in arguments["prefixes"])
    try:
        archive.manifest()
        names = set(arguments["names"])
        if prefixes:
            names |= {one for one in archive.place.names() if one.startswith(prefixes)}
        if names:
            archive.change(lambda files: [files.pop(name, None) for name in names].clear())
        for name in sorted(names):
            archive.place.remove(name)
            progress(name)
    except BROKEN as error:
        raise _failed(archive.name, error) from error


def check(arguments: dict[str, Any], progress: Progress) -> list[str]:
    """Return what is wrong with an archive of these `files` (names with sizes)."""
    try:
        archive = _archive(arguments)
        known = archive.manifest()["files"]
        if not known:
            archive.change(lambda files: None)  # who cannot write learns it now
        found = []
        for name, size in arguments["files"]:
            progress(name)
            try:
                if archive.place.size(name) != size:
                    found.append(f"{name} has another size than it had")
            except FileNotFoundError:
                found.append(f"{name} is missing")
        return found
    except (Conflict, Denied, Unavailable) as error:
        return [str(error)]
    except BROKEN as error:
        return [str(_failed(str(arguments["name"]), error))]
