"""What the log service needs from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zope.interface import Interface

from walt.common.records import Block
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

    async def open(query: LogQuery) -> ILogCursor:
        """Return a cursor over the matching lines, by place, then arrival."""


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
