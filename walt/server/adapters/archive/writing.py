"""Write a week of log lines, write a file again, remove files. Blocking: for workers.

Files are read back before anybody relies on them. The manifest, which names all files with
their checksums, says whose archive this is: one of another platform is never touched.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow

from walt.common.errors import Conflict, Denied, Unavailable, in_words
from walt.server.adapters.archive import parquet
from walt.server.adapters.archive.places import MAX_TEXT, Place, place_of

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


class Known(Protocol):
    """What the database knows of a file: octets, lines, those of streams that are forgotten."""

    @property
    def size(self) -> int:
        """Its octets."""

    @property
    def lines(self) -> int:
        """All lines in it."""

    @property
    def forgotten(self) -> int:
        """Those of the streams that are to be taken out."""


BROKEN = (OSError, pyarrow.ArrowException)


def _failed(target: str, error: BaseException) -> Unavailable:
    return Unavailable(f"the log archive {target} cannot be used: {in_words(error)[:500]}")


@dataclass(frozen=True)
class Holder:
    """Which copy of a platform this is, and the file that somebody makes to have it take over.

    Copies have the same database: they would remove what is the other one's. `id` is empty
    where nobody minds.
    """

    id: str = ""
    claim: str = ""


class Archive:
    """The files of one platform, and their manifest."""

    def __init__(
        self, place: Place, name: str, platform: str, has_files: bool, holder: Holder
    ) -> None:
        self.place, self.name = place, name
        self._platform, self._has_files, self._holder = platform, has_files, holder

    def manifest(self) -> dict[str, Any]:
        """Return it, a new one where there is none. Raises Conflict, Unavailable, OSError."""
        found = self.known_manifest()
        if self._has_files and (found is None or not found["files"]):
            raise self.lost()
        if found is None:
            return {"format": FORMAT, "platform": self._platform, "files": {}}
        return found

    def known_manifest(self) -> dict[str, Any] | None:
        """Return the one that is there. Raises as `manifest`."""
        text = self.place.read(MANIFEST)
        if text is None:
            return None
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
        if self._holder.id and found.get("holder", self._holder.id) != self._holder.id:
            raise Conflict(
                f"the log archive {self.name} is that of the platform of which this one is a copy,"
                " or which was elsewhere before; if nothing but this one is to change it from now"
                f" on, run: touch {self._holder.claim}"
            )
        return dict(found)

    def claim(self) -> None:
        """Take the archive over from another copy of the platform, if somebody said so."""
        if not self._holder.claim or not os.path.exists(self._holder.claim):
            return
        text = self.place.read(MANIFEST)
        if text is not None:
            found = json.loads(text)
            if isinstance(found, dict) and found.get("platform") == self._platform:
                found["holder"] = self._holder.id
                self._put(found)
                os.unlink(self._holder.claim)

    def lost(self) -> Unavailable:
        """Return what is told where files were, and are not."""
        return Unavailable(
            f"{MANIFEST} of the log archive {self.name} is missing, or knows no file of this"
            " platform: mount the disk it is on, or put back a copy"
        )

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the files that the manifest names, at once."""
        manifest = self.manifest()
        change(manifest["files"])
        if self._holder.id:
            manifest["holder"] = self._holder.id
        self._put(manifest)

    def _put(self, manifest: dict[str, Any]) -> None:
        text = json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"
        if len(text) > MAX_TEXT:
            raise Unavailable(
                f"{MANIFEST} of the log archive {self.name} would be too large; give the platform"
                " another directory or prefix"
            )
        with self.place.created(MANIFEST) as file:
            file.write(text)

    def former(self, name: str, size: int, lines: int) -> dict[str, Any]:
        """Return what the manifest has of a file whose size and lines the database knows.

        Raises Unavailable when one of them, or the file itself, is not as the others say.
        """
        found = self.manifest()["files"].get(name)
        if (
            not isinstance(found, dict) or not found.keys() >= _TOLD
            or (found["size"], found["lines"]) != (size, lines)
        ):
            raise Unavailable(
                f"{MANIFEST} of the log archive {self.name} knows another {name} than the database"
                " does; put back a copy of both"
            )
        if self.place.size(name) != size:
            raise self.changed(name)
        return found

    def changed(self, name: str) -> Unavailable:
        """Return what is told of a file that has other content than it had."""
        return Unavailable(
            f"{name} of the log archive {self.name} is not what was written; put it back from a"
            " copy"
        )

    def store(
        self, prefix: str, tables: Iterator[pyarrow.Table], limit: int, progress: Progress
    ) -> list[dict[str, Any]]:
        """Write files with names that begin with `prefix`, read them back, put them down."""

        def spaced() -> Iterator[pyarrow.Table]:
            for table in tables:
                self.place.check_space()
                yield table

        stored, more = [], spaced()
        for number in itertools.count(1):
            first = next(more, None)
            if first is None:
                break
            name = f"{prefix}-{number:03}.parquet"
            with self.place.created(name) as file:
                about = parquet.write(file, itertools.chain([first], more), limit)
            self._verify(name, about, progress)
            stored.append({"name": name, **about})
        if stored:
            self.change(lambda files: files.update({
                file["name"]: {key: file[key] for key in sorted(_TOLD)} for file in stored
            }))
        return stored

    def _verify(self, name: str, about: dict[str, Any], progress: Progress) -> None:
        if self.place.size(name) != about["size"]:
            raise Unavailable(f"{name} does not have the size that was written")
        with self.place.opened(name) as file:
            found = parquet.read_back(file, lambda: progress(name))
        if any(about[key] != value for key, value in found.items()):
            raise Unavailable(f"{name} does not have the lines that were written")


_TOLD = {"lines", "size", "sha256", "content", "first", "last"}


def _archive(arguments: dict[str, Any]) -> Archive:
    return Archive(
        place_of(arguments["target"]), str(arguments["name"]), str(arguments["platform"]),
        bool(arguments["has_files"]), Holder(**arguments["holder"]),
    )


def _claimed(arguments: dict[str, Any]) -> Archive:
    archive = _archive(arguments)
    try:
        archive.claim()
    except (*BROKEN, ValueError) as error:
        raise _failed(archive.name, error) from error
    return archive


def _tables(lines: Iterator[Line], progress: Progress) -> Iterator[pyarrow.Table]:
    rows: list[Line] = []
    size = 0
    for row in lines:
        rows.append(row)
        size += len(row[3].encode())
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
    archive = _claimed(arguments)
    try:
        archive.manifest()
        with week as found:
            files = archive.store(
                arguments["prefix"], _tables(found.lines, progress),
                arguments["file_size"], progress,
            )
            if sum(file["lines"] for file in files) != found.count:
                raise Unavailable("the database gave another number of lines than it counted")
            return {"files": files, "mark": found.mark}
    except BROKEN as error:
        raise _failed(archive.name, error) from error


def rewrite(
    arguments: dict[str, Any], known: Known, progress: Progress
) -> list[dict[str, Any]]:
    """Write the file `former` again without the lines of `streams`; return the new files.

    Raises Unavailable when it is not what the manifest and the database know of it.
    """
    archive, name = _claimed(arguments), str(arguments["former"])
    try:
        content = archive.former(name, known.size, known.lines)["content"]
        with archive.place.opened(name) as file:
            reader = parquet.opened(file)

            def kept() -> Iterator[pyarrow.Table]:
                streams, summary = set(arguments["streams"]), parquet.Summary()
                gone = pyarrow.array(streams, pyarrow.int32())
                for table in parquet.groups(reader, range(reader.num_row_groups)):
                    summary.add(table)
                    rest = parquet.without_streams(table, gone)
                    if len(rest):
                        yield rest
                if not summary.agrees(content, streams, known.forgotten):
                    raise archive.changed(name)  # before the manifest names the new files

            return archive.store(
                arguments["prefix"], kept(), arguments["file_size"], progress
            )
    except BROKEN as error:
        raise _failed(archive.name, error) from error


def remove(arguments: dict[str, Any], progress: Progress) -> None:
    """Remove the files `names`, and those whose names begin with one of `prefixes`.

    Raises Unavailable where no file can have been: its disk is not mounted.
    """
    archive = _claimed(arguments)
    prefixes = tuple(f"{argument}-" for argument in arguments["prefixes"])
    try:
        known, names = archive.known_manifest(), set(arguments["names"])
        if known is None and names:
            raise archive.lost()
        archive.manifest()
        if prefixes:
            names |= {name for name in archive.place.names() if name.startswith(prefixes)}
        if known is not None and not names.isdisjoint(known["files"]):
            archive.change(lambda files: [files.pop(name, None) for name in names].clear())
        for name in sorted(names):
            archive.place.remove(name)
            progress(name)
    except BROKEN as error:
        raise _failed(archive.name, error) from error


def check(arguments: dict[str, Any], progress: Progress) -> list[str]:
    """Return what is wrong with an archive of these `files` (names with sizes).

    With `known`, names that may be there besides, and `begun`, what others may begin with, those
    that are neither are told, too.
    """
    try:
        archive = _archive(arguments)
        named = archive.manifest()["files"]
        # Who cannot write learns it now. The manifest is the server's: it writes meanwhile.
        probe = f"probe-{secrets.token_hex(8)}"
        with archive.place.created(probe) as file:
            file.write(b"walt doctor\n")
        archive.place.remove(probe)
        found = []
        if "known" in arguments:
            begun = tuple(f"{argument}-" for argument in arguments["begun"])
            strange = sorted(
                name for name in (named.keys() & archive.place.names()) - set(arguments["known"])
                if not name.startswith(begun)
            )
            if strange:
                found.append(
                    f"the database does not know {strange[0]}"
                    + (f" and {len(strange) - 1} other files" if len(strange) > 1 else "")
                )
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
