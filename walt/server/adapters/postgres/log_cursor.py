"""Log lines in PostgreSQL, read by server-side cursors, with those of an archive between them."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import sql
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from walt.common.errors import Invalid, LimitExceeded, Unavailable, WaltError
from walt.common.records import Block, block_of, numbers
from walt.server.adapters.postgres.archived_lines import STEADY, Archived, archived
from walt.server.adapters.postgres.connection import (
    Database,
    Row,
    abandonable,
    unavailable,
    was_lost,
)
from walt.server.adapters.postgres.log_queries import (
    SNAPSHOT,
    Limits,
    limited,
    of_lines,
    searches,
    selected_streams,
)
from walt.server.domain.logs.interfaces import IArchiveReader, ILogArchive, ILogCursor
from walt.server.domain.logs.merging import MergedSource, Placed, next_merged
from walt.server.domain.logs.model import LogQuery

Key = tuple[datetime, int]  # place and arrival of a line

FIRST_BLOCK, BLOCK = 200, 4000  # lines read at once, the first time and later
BLOCK_SIZE = 512 << 10  # octets, about: fewer lines are read when they are long
LONG = 16 << 10  # octets above which a line is read alone

# Columns of the next lines, as `walt.common.records` describes them, and where long ones are.
_FETCH = sql.SQL("""
SELECT string_agg(int8send(moment), ''), string_agg(int4send(stream), ''),
       string_agg(int4send(octet_length(line)), ''),
       coalesce(string_agg(CASE WHEN octet_length(line) <= %(long)s THEN line END, ''), ''),
       array_agg(place) FILTER (WHERE octet_length(line) > %(long)s),
       array_agg(arrival) FILTER (WHERE octet_length(line) > %(long)s), {}, {}
FROM fetched_logs(%(cursor)s, %(count)s)
""")
# Where other lines come between: the place of each, and its arrival.
_PLACES = sql.SQL("string_agg(int8send((date_part('epoch', place) * 1000000)::bigint), '')")
_ARRIVALS = sql.SQL("string_agg(int8send(arrival), '')")
_LONG_LINE = "SELECT line FROM logs WHERE place = %s AND arrival = %s"
_SOURCES = """
SELECT id, coalesce(issuer_mac, former), name FROM logstreams WHERE id = ANY(%s)
"""


def reader_of(archive: ILogArchive | None, wanted: Archived) -> IArchiveReader:
    """Return a reader of what is wanted. Raises Unavailable, LimitExceeded."""
    if archive is None:
        raise Unavailable(
            "log lines of this range of time were archived, and server.conf does not say where"
            " any more: ask the administrator to set logs.archive again, or give a later range"
        )
    return archive.read(wanted.reading)


class _Part(NamedTuple):
    """Lines that were read, or one whose text is to be read by its key.

    `places` and `arrivals` are empty where nobody asks for them.
    """

    block: Block
    key: Key | None
    places: array[int]
    arrivals: array[int]


@implementer(ILogCursor)
class LogCursor:
    """Server-side cursors, one after the other, on a connection of its own, in one transaction.

    While a block is read, the next one is on its way: both processors work. A search ends
    after `limits.search` seconds. Archived lines come in their places between the others.
    """

    def __init__(
        self, database: Database, limits: Limits, archive: ILogArchive | None
    ) -> None:
        self._database, self._limits, self._archive = database, limits, archive
        self._reader: IArchiveReader | None = None
        self._merged: list[MergedSource] = []  # what is read in place of the database alone
        self._fetch = _FETCH.format(sql.NULL, sql.NULL)
        self._connection: Any = None
        self._coming: Deferred[list[Row]] | None = None
        self._sources: dict[int, tuple[str, str]] = {}  # (issuer, stream) by id
        self._parts: deque[_Part] = deque()
        self._count = FIRST_BLOCK
        self._following = 0  # how many cursors have not been read

    async def start(self, query: LogQuery, settled: Callable[[], object]) -> None:
        """Open the transaction and the cursors: all see the same lines."""
        self._connection = await self._database.connect()
        try:
            await abandonable(
                self._connection.runOperation(SNAPSHOT, limited(self._limits.search))
            )
            await abandonable(self._connection.runOperation(STEADY))
            # The first query takes the snapshot of all (PostgreSQL manual, "Repeatable Read").
            await self._query("SELECT 1", ())
            settled()
            needed = await archived(self._connection, query)
            if needed is not None:
                self._merge(needed)
            selected = await selected_streams(self._connection, query, self._limits.listed)
            wanted = searches(query, of_lines(query, selected))
            for number, (text, values) in enumerate(reversed(wanted)):
                await abandonable(self._connection.runOperation(
                    sql.SQL("DECLARE {} NO SCROLL CURSOR FOR {}").format(
                        sql.Identifier(_named(number)), text
                    ),
                    tuple(values) or None,
                ))
        except (CancelledError, WaltError):
            await self.close()
            raise
        except Exception as error:
            await self.close()
            if was_lost(error):
                raise unavailable(error) from error
            raise Invalid(f"the query was refused: {str(error).strip()}") from None
        self._following = len(wanted) - 1
        self._ask()

    def _merge(self, needed: Archived) -> None:
        self._fetch = _FETCH.format(_PLACES, _ARRIVALS)
        self._reader = reader_of(self._archive, needed)
        self._merged = [MergedSource(self._next_stored)]
        for number, place in enumerate(needed.first_places):
            self._merged.append(MergedSource(partial(self._next_archived, number), (place, 0)))

    async def _next_archived(self, number: int) -> Placed:
        """Return the next lines of a file, empty at its end."""
        assert self._reader is not None
        found: Placed = await self._reader.following(number)
        numbered = [int(stream) for _, stream in found.block.sources]
        await self._learn(numbered)
        found.block.sources = [self._sources[stream] for stream in numbered]
        return found

    async def _next_stored(self) -> Placed:
        part = await self._next_part()
        return Placed(part.block, part.places, part.arrivals)

    def _ask(self) -> None:
        self._coming = self._query(self._fetch, {
            "cursor": _named(self._following), "count": self._count, "long": LONG,
        })

    def _query(
        self, text: str | sql.Composable, values: tuple[Any, ...] | dict[str, Any]
    ) -> Deferred[list[Row]]:
        return abandonable(self._connection.runQuery(text, values))

    async def next_block(self) -> Block:
        """Return the next lines, empty at the end."""
        try:
            if self._connection is None:
                return block_of([])
            if self._merged:
                return await next_merged(self._merged)
            return (await self._next_part()).block
        except (CancelledError, WaltError):
            await self.close()
            raise
        except psycopg2.errors.QueryCanceled:
            await self.close()
            raise LimitExceeded(
                f"no log line was found in {self._limits.search / 60:g} minutes of search;"
                " narrow the range of time, or the expression"
            ) from None
        except (psycopg2.Error, OSError) as error:
            await self.close()
            raise unavailable(error) from error

    async def _read(self) -> bool:
        """Read the next lines of the present cursor into `_parts`; tell whether there were any."""
        if self._coming is None:
            self._ask()
        coming, self._coming = self._coming, None
        assert coming is not None
        ((moments, streams, sizes, text, places, arrivals, *keys),) = await coming
        if moments is None:
            return False
        numbered = numbers("i", streams)
        used = list(set(numbered))
        await self._learn(used)
        octets = numbers("i", sizes)
        # Few lines at a time when they are long: a reader costs little memory.
        size = sum(octets) // len(octets) + 1
        self._count = max(1, min(BLOCK, 4 * self._count, BLOCK_SIZE // size))
        if places is None:
            self._ask()  # PostgreSQL works while these are made ready
        positions = {number: position for position, number in enumerate(used)}
        block = Block(
            [self._sources[number] for number in used], numbers("q", moments),
            array("i", map(positions.__getitem__, numbered)), octets, text.encode(),
        )
        whole = _Part(block, None, *(numbers("q", key or b"") for key in keys))
        if places is None:
            self._parts.append(whole)
        else:
            self._parts += _parted(whole, list(zip(places, arrivals, strict=True)))
        return True

    async def _learn(self, used: Sequence[int]) -> None:
        """Look up streams that are new to us."""
        new = [number for number in used if number not in self._sources]
        if new:
            rows = await self._query(_SOURCES, (new,))
            self._sources |= {int(number): (issuer, name) for number, issuer, name in rows}

    async def _next_part(self) -> _Part:
        """Return the next lines of the database, empty at the end."""
        while not self._parts and self._connection is not None:
            if await self._read():
                continue
            if not self._following:
                break
            self._following -= 1
        if not self._parts or self._connection is None:
            return _Part(block_of([]), None, array("q"), array("q"))
        part = self._parts.popleft()
        if part.key is not None:
            ((line,),) = await self._query(_LONG_LINE, part.key)
            part.block.text = line.encode()
        return part

    async def close(self) -> None:
        """Close the connection, and with it the cursor."""
        connection, self._connection = self._connection, None
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.addErrback(lambda failure: None)
            coming.cancel()
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        if connection is not None:
            connection.close()


def _parted(whole: _Part, keys: Sequence[Key]) -> Iterator[_Part]:
    """Yield lines by parts: each long one is a part with its key, its text is to be read."""
    block = whole.block

    def part(start: int, end: int, text: bytes, key: Key | None = None) -> _Part:
        cut = slice(start, end)
        return _Part(
            Block(block.sources, block.moments[cut], block.which[cut], block.sizes[cut], text),
            key, whole.places[cut], whole.arrivals[cut],
        )

    long = [position for position, size in enumerate(block.sizes) if size > LONG]
    start = octets = 0
    for position, key in (*zip(long, keys, strict=True), (len(block), None)):
        if start < position:
            size = sum(block.sizes[start:position])
            yield part(start, position, block.text[octets:octets + size])
            octets += size
        if key is not None:
            yield part(position, position + 1, b"", key)
        start = position + 1


def _named(number: int) -> str:
    return f"dump{number}"
