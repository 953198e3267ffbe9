"""Log lines, stored and live (spec user-surface §2.5)."""

from __future__ import annotations

import time
from collections import namedtuple
from datetime import datetime

from walt.client.answers import senseless
from walt.client.errors import Failure
from walt.client.exceptions import TimeoutException
from walt.client.log_lines import blocks
from walt.client.operations.history import parse_range
from walt.client.scripting.columns import (
    LogColumns,
    arrow_schema,
    library,
    pandas_frame,
)
from walt.client.scripting.link import LINK
from walt.common.records import block_of

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from walt.client.scripting.issuers import Issuers
    from walt.common.records import Block, Record

Log = namedtuple("Log", ("timestamp", "line", "issuer", "stream"))
COLUMNS = {"timestamp": "moment", "issuer": "word", "stream": "word", "line": "text"}


def get_logs(
    issuers: str, realtime: bool, history: str | None, timeout: float, consoles: bool,
    objects: Issuers,
) -> LogLines:
    """Return an iterator over log lines; what is wrong with the request is told at once.

    `objects` gives the objects they come from.
    `timeout` is in seconds, none below 0. What nodes show on their consoles is left out unless
    `consoles`, as by `walt log show`. Raises Failure; TimeoutException while iterating.
    """
    if not realtime and history is None:
        raise Failure("get_logs needs realtime=True, a history range, or both")
    names = LINK.json("cs.logs.issuers", "names", [str], issuers=issuers)
    if not names:
        raise Failure("there is no node in this set")
    query: dict[str, Any] = {
        "issuers": ",".join(names), "streams": None, "lines": None,
        "history": history is not None, "realtime": realtime, "exclude_consoles": not consoles,
    }
    if history is not None:
        query["start"], query["end"] = parse_range(LINK, history)
    return LogLines(query, time.monotonic() + timeout if timeout >= 0 else None, objects)


def _taken(held: LogColumns, size: int) -> Any:
    try:
        return held.take(size)
    except (ValueError, TypeError, OverflowError):  # those of pyarrow are among them
        raise senseless("a log line has no date") from None


class LogLines:
    """An iterator over log lines, or over the rest of them as columns.

    Columns are those of `walt log export`: timestamp, issuer, stream and line. As columns, the
    lines end with the time limit; iterating over them, it raises TimeoutException.
    """

    def __init__(self, query: dict[str, Any], until: float | None, objects: Issuers) -> None:
        self._until = until
        self._objects = objects
        self._blocks = blocks(query, until)
        self._rest: Iterator[Record] = iter(())  # of the block that was received last
        self._lines = self._each()

    def __iter__(self) -> LogLines:
        return self

    def __next__(self) -> Log:
        return next(self._lines)

    def close(self) -> None:
        """Leave the rest of the lines"""
        self._lines.close()
        self._blocks.close()

    def _late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _each(self) -> Generator[Log, None, None]:
        try:
            for block in self._blocks:
                self._rest = iter(block.records())
                for timestamp, issuer, stream, line in self._rest:
                    yield Log(
                        datetime.fromtimestamp(timestamp), line, self._objects[issuer], stream
                    )
                    if self._late():
                        raise TimeoutException
        except TimeoutError:
            raise TimeoutException from None
        except (ValueError, OverflowError, OSError):  # a date that no calendar has
            raise senseless("a log line has no date") from None

    def _left(self) -> Iterator[Block]:
        """Yield the blocks that are to come, until the time limit."""
        try:
            for block in self._blocks:
                yield block
                if self._late():
                    break
        except TimeoutError:
            pass
        self.close()

    def batches(self, size: int = 100_000) -> Iterator[Any]:
        """Iterate over pyarrow.RecordBatch of so many lines: memory does not grow"""
        library("pyarrow")
        return self._batches(size)

    def _batches(self, size: int) -> Iterator[Any]:
        held = LogColumns(COLUMNS)
        held.add(block_of(list(self._rest)))
        for block in self._left():
            held.add(block)
            while len(held) >= size:
                yield _taken(held, size)
        while len(held):
            yield _taken(held, size)

    def to_arrow(self) -> Any:
        """Return a pyarrow.Table"""
        table = library("pyarrow").Table
        return table.from_batches(self.batches(), schema=arrow_schema(COLUMNS)).unify_dictionaries()

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame"""
        library("pandas")
        rest = (record for block in self._left() for record in block.records())
        return pandas_frame(COLUMNS, [*self._rest, *rest])

    def to_parquet(self, path: str) -> None:
        """Write an Apache Parquet file; memory does not grow"""
        with library("pyarrow.parquet").ParquetWriter(path, arrow_schema(COLUMNS)) as file:
            for batch in self.batches():
                file.write_batch(batch)
