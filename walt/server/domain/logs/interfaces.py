"""What the log service needs from the outside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from zope.interface import Interface

from walt.common.records import Block
from walt.server.domain.logs.archive import ArchivedFile, Owner, Part, Reading, Written
from walt.server.domain.logs.merging import Placed
from walt.server.domain.logs.model import (
    KnownStream,
    LogBlock,
    LogQuery,
    StreamKey,
    StreamMode,
)


class ILogStore(Interface):
    """Where lines are kept. All methods are coroutines."""

    async def ensure_streams(
        streams: Mapping[StreamKey, StreamMode]
    ) -> Mapping[StreamKey, KnownStream]:
        """Create the streams that do not exist; return their ids and where they end.

        Streams of devices that were just forgotten are absent from the answer.
        Raises Invalid when a name is refused, for good.
        """

    async def insert(batch: int, blocks: Sequence[tuple[int, LogBlock]]) -> None:
        """Store blocks, each with the id of its stream; those of vanished streams are dropped.

        Their order is that of arrival. All or nothing. `batch` numbers increase; a batch
        that was stored already (the answer was lost with the connection) is not stored again.
        Raises Invalid when the lines themselves are refused, for good; any other error means
        that they may be stored later.
        """

    async def former_issuers() -> list[str]:
        """Return the names of forgotten devices whose lines were kept."""

    async def forget_former(name: str) -> None:
        """Forget the streams that were kept of forgotten devices of this name."""

    async def remove_forgotten(count: int) -> bool:
        """Delete about `count` lines of forgotten devices; tell whether more may be left."""

    async def make_partitions() -> None:
        """Make room for the lines of this week and of the next one. Raises Busy."""

    async def drop_older_than(days: int) -> None:
        """Delete what is more than `days` old, a week at a time. Raises Busy."""

    async def count(query: LogQuery) -> int:
        """Return how many stored lines match."""

    async def open(
        query: LogQuery, settled: Callable[[], object] = lambda: None
    ) -> ILogCursor:
        """Return a cursor over the matching lines, by place, then arrival.

        `settled` is called once it is certain which lines it has: none that are stored later.
        """


class ILogCursor(Interface):
    """Matching lines, block by block."""

    async def next_block() -> Block:
        """Return the next lines, empty at the end."""

    async def close() -> None:
        """Free the cursor; safe to call twice."""


class ICheckpoints(Interface):
    """Moments named by users."""

    async def time_of(user: str, name: str) -> float:
        """Return the epoch time of a checkpoint. Raises NotFound."""

    async def add(user: str, name: str, moment: float) -> None:
        """Name an epoch time. Raises Conflict when the user has this name already."""

    async def remove(user: str, name: str) -> None:
        """Forget a checkpoint. Raises NotFound."""

    async def all_of(user: str) -> list[tuple[float, str]]:
        """Return (epoch time, name) of the checkpoints of a user, by time."""


class ILogArchive(Interface):
    """Files with weeks of lines. All methods but `read` are coroutines.

    They raise Unavailable when the archive, or the database, cannot be used (as when a disk is not
    mounted), Conflict when the archive is another platform's.
    """

    async def write(part: Part, prefix: str, owner: Owner) -> Written:
        """Write the lines of a partition, read the files back, name them in the manifest.

        Names of files begin with `prefix`. Nothing is left out: otherwise this raises.
        """

    async def rewrite(
        former: str, prefix: str, owner: Owner, streams: Sequence[int]
    ) -> Sequence[ArchivedFile]:
        """Write a file again without the lines of some streams; the former one stays."""

    async def remove(
        names: Sequence[str], prefixes: Sequence[str], owner: Owner
    ) -> None:
        """Remove files, by their names and by what these begin with."""

    async def problems(files: Sequence[tuple[str, int]], owner: Owner) -> list[str]:
        """Return what is wrong with an archive that has files of these names and sizes."""

    def read(wanted: Reading) -> IArchiveReader:
        """Return a reader of some files. Raises Unavailable, LimitExceeded (who asks has many)."""


class IArchiveReader(Interface):
    """The matching lines of some files."""

    async def following(number: int) -> Placed:
        """Return the next lines of a file, by its position in what is wanted; empty at the end.

        The sources of the block are those of the file: numbers of streams, as texts, without
        issuer. Raises Unavailable (it says which file and what to do), LimitExceeded.
        """

    async def count(number: int) -> int:
        """Return how many lines of a file match. Raises as `following`."""

    async def close() -> None:
        """Free it; safe to call twice."""


class IArchiveRecords(Interface):
    """What the database knows of archived weeks. All methods are coroutines."""

    async def owner() -> Owner:
        """Return who this platform is, for the manifest."""

    async def due(days: int, but: Collection[str] = ()) -> Part | None:
        """Return the oldest partition that ended more than `days` ago, None without any.

        Tables of `but` are left out. From now on lines that come to it are noted, for `finish`.
        Lines that came late for weeks which have no table any more are one part together, once
        in a while; so are few lines of a week that never had one. Raises Busy.
        """

    async def begin(prefix: str) -> None:
        """Note that files are being written whose names begin with `prefix`."""

    async def abandoned() -> list[str]:
        """Take the attempts that did not end, and return their prefixes.

        None of them can end any more. Raises Unavailable while that is not certain of one.
        """

    async def forget_attempt(prefix: str) -> None:
        """Forget one: its files are removed."""

    async def finish(part: Part, prefix: str, written: Written) -> bool:
        """Record files and drop their partition, in one transaction; `prefix` ends.

        Return whether it was so: not when lines came since the files were written. Raises Busy
        (somebody reads: it can be called again), Unavailable when `prefix` was taken.
        """

    async def retire(days: int) -> None:
        """Give up the files whose weeks ended more than `days` ago."""

    async def gone() -> list[str]:
        """Return the names of files that were given up some days ago."""

    async def removed(names: Sequence[str]) -> None:
        """Forget files that were removed."""

    async def with_forgotten() -> tuple[str, list[int]] | None:
        """Return a file with lines of forgotten streams, and these; None without any."""

    async def replace(former: str, prefix: str, files: Sequence[ArchivedFile]) -> None:
        """Put files in the place of one, which is given up; `prefix` ends.

        Raises Unavailable when `prefix` was taken.
        """

    async def files() -> list[tuple[str, int]]:
        """Return the names and sizes of all files that are read."""
