"""Weeks of log lines in files, as values (design D3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple


class ArchiveTarget(NamedTuple):
    """Where files are: a directory, or a bucket of a store that speaks S3.

    `prefix` ends with a slash unless it is empty. `credentials` is a file in the format of
    ~/.aws/credentials; without one, and without AWS_… in the environment, that file is read.
    """

    directory: str | None = None
    bucket: str | None = None
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    credentials: str | None = None

    @property
    def in_the_clear(self) -> bool:
        """Whether lines cross a network that others may read."""
        scheme, _, rest = (self.endpoint or "").partition("://")
        host = rest.partition(":")[0]
        return scheme == "http" and host != "localhost" and not host.startswith("127.")

    def __str__(self) -> str:
        """Return what people call it."""
        return self.directory or f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class Owner(NamedTuple):
    """Who this platform is, and whether it has files: then their manifest must be there."""

    platform: str
    has_files: bool


class Part(NamedTuple):
    """A partition that is due: its table, and the Monday of its week."""

    table: str
    week: date


class StreamShare(NamedTuple):
    """What one file has of a stream: lines, and the place of the last one in microseconds."""

    lines: int
    last_place: int


class ArchivedFile(NamedTuple):
    """One file that was written and read back. Times are epoch microseconds, `size` octets."""

    name: str
    lines: int
    size: int
    first: int
    last: int
    first_place: int
    last_place: int
    streams: Mapping[int, StreamShare]


class Written(NamedTuple):
    """The files of one week; `mark` is the highest number of arrival that was there."""

    files: Sequence[ArchivedFile]
    mark: int


class Reading(NamedTuple):
    """What is wanted of archived lines.

    `files` are names with their sizes. `streams` are the numbers of streams; None: all but
    those of `without`. `lines` is an expression that `LogQuery` accepted. Bounds are epoch
    microseconds, exclusive, None when open. `reader` is who asks.
    """

    files: Sequence[tuple[str, int]]
    streams: Sequence[int] | None
    without: Sequence[int] = ()
    lines: str | None = None
    start: int | None = None
    end: int | None = None
    reader: str = ""


def file_of(value: Mapping[str, Any]) -> ArchivedFile:
    """Return a file from what a worker tells of it."""
    streams = {
        int(stream): StreamShare(int(lines), int(last))
        for stream, (lines, last) in value["streams"].items()
    }
    return ArchivedFile(
        name=str(value["name"]), lines=int(value["lines"]), size=int(value["size"]),
        first=int(value["first"]), last=int(value["last"]),
        first_place=int(value["first_place"]), last_place=int(value["last_place"]),
        streams=streams,
    )
