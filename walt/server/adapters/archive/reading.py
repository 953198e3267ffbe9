"""The wanted lines of archived files, block by block. Blocking: for the child that reads."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pyarrow
import pyarrow.compute

from walt.common.errors import in_words
from walt.server.adapters.archive import frames, parquet
from walt.server.adapters.archive.places import Place, place_of
from walt.server.domain.logs.ere import Expression

FIRST_BLOCK, BLOCK = 200, 4000  # lines given at once, the first time and later
BLOCK_SIZE = 512 << 10  # octets, about: fewer lines are given when they are long
_BROKEN = (OSError, ValueError, pyarrow.ArrowException)


def _numbers(kind: Any, values: array[int]) -> pyarrow.Array:
    """Return numbers as pyarrow has them: of a list, it would import pandas for half a second."""
    return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(values)])


def _moment(value: int) -> pyarrow.Scalar:
    return _numbers(pyarrow.int64(), array("q", [value]))[0]


class Missing(Exception):
    """A file that cannot be read, and why."""


class Reader:
    """The wanted lines of each file. Raises Missing."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        pyarrow.set_cpu_count(1)  # the others are for the server, and for other readers
        self._place: Place = place_of(wanted["target"])
        self._files: list[tuple[str, int]] = [(name, size) for name, size in wanted["files"]]
        self._start, self._end = wanted["start"], wanted["end"]
        self._streams = self._array(wanted["streams"])
        self._without = self._array(wanted["without"] or None)
        self._lines = None if wanted["lines"] is None else Expression(wanted["lines"])
        self._open: dict[int, Iterator[frames.Frame]] = {}

    @staticmethod
    def _array(numbers: list[int] | None) -> Any:
        return None if numbers is None else _numbers(pyarrow.int32(), array("i", numbers))

    def following(self, number: int) -> frames.Frame:
        """Return the next lines of a file, empty at its end."""
        if number not in self._open:
            self._open[number] = self._blocks(number)
        return next(self._open[number], frames.EMPTY)

    def count(self, number: int) -> int:
        """Return how many lines of a file match."""
        columns = parquet.READ if self._lines is not None else ["timestamp", "stream_id"]
        return sum(map(len, self._tables(number, columns)))

    def _tables(self, number: int, columns: list[str]) -> Iterator[pyarrow.Table]:
        name, size = self._files[number]
        try:
            found = self._place.size(name)
            if found != size:
                raise Missing(f"{name} has {found:,} octets, it had {size:,}")
            with self._place.opened(name) as file:
                reader = parquet.opened(file)
                wanted = (
                    number for number in range(reader.num_row_groups)
                    if parquet.overlaps(reader, number, self._start, self._end)
                )
                for table in parquet.groups(reader, wanted, columns):
                    kept = self._filtered(table)
                    if len(kept):
                        yield kept
        except FileNotFoundError:
            raise Missing(f"{name} is missing") from None
        except _BROKEN as error:
            raise Missing(f"{name}: {in_words(error)[:300]}") from error

    def _filtered(self, table: pyarrow.Table) -> pyarrow.Table:
        compute = pyarrow.compute
        masks = []
        moments = table.column("timestamp").cast(pyarrow.int64())
        if self._start is not None:
            masks.append(compute.greater(moments, _moment(self._start)))
        if self._end is not None:
            masks.append(compute.less(moments, _moment(self._end)))
        if self._streams is not None:
            masks.append(compute.is_in(table.column("stream_id"), value_set=self._streams))
        if self._without is not None:
            masks.append(compute.invert(
                compute.is_in(table.column("stream_id"), value_set=self._without)
            ))
        for mask in masks:
            if not compute.all(mask).as_py():
                together = masks[0]
                for other in masks[1:]:
                    together = compute.and_(together, other)
                table = table.filter(together)
                break
        if self._lines is not None and len(table):
            found_in = self._lines.found_in
            table = table.take(_numbers(pyarrow.int64(), array("q", [
                number for number, line in enumerate(table.column("line").to_pylist())
                if found_in(line)
            ])))
        return table

    def _blocks(self, number: int) -> Iterator[frames.Frame]:
        most = FIRST_BLOCK
        for table in self._tables(number, parquet.READ):
            columns = {name: parquet.whole(table.column(name)) for name in parquet.READ}
            sizes, text = parquet.texts(columns["line"])
            ends = array("q", accumulate(sizes.to_pylist(), initial=0))
            start = 0
            while start < len(table):
                stop = min(len(table), start + most)
                while stop > start + 1 and ends[stop] - ends[start] > BLOCK_SIZE:
                    stop = start + (stop - start) // 2
                moments, places, arrivals, streams = (
                    parquet.octets(columns[name][start:stop])
                    for name in ("timestamp", "place", "arrival", "stream_id")
                )
                yield frames.Frame(
                    moments, places, arrivals, streams, parquet.octets(sizes[start:stop]),
                    text[ends[start]:ends[stop]],
                )
                start, most = stop, BLOCK
