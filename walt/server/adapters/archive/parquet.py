"""Log lines as Parquet (https://parquet.apache.org/docs/file-format/). Blocking: for workers.

Lines of a file are in their order, in groups whose statistics tell their times: a reader of a
window skips the others. Pages have checksums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import IO, Any

import pyarrow
import pyarrow.compute
from pyarrow import parquet

GROUP = 50_000  # lines of a row group
GROUP_SIZE = 16 << 20  # octets of text after which a group ends
FILE_SIZE = 1 << 30  # octets after which another file begins: stores copy 5 GiB at most
LEVEL = 3  # of zstd

_MOMENT = pyarrow.timestamp("us", tz="UTC")
# The first four are those of `walt log export`; the others say where a line belongs.
SCHEMA = pyarrow.schema([
    ("timestamp", _MOMENT), ("issuer", pyarrow.string()), ("stream", pyarrow.string()),
    ("line", pyarrow.string()), ("mac", pyarrow.string()), ("stream_id", pyarrow.int32()),
    ("place", _MOMENT), ("arrival", pyarrow.int64()),
])
READ = ["timestamp", "line", "stream_id", "place", "arrival"]
NUMBERS = ("timestamp", "stream_id", "place", "arrival")


def octets(column: pyarrow.Array) -> memoryview:
    """Return the numbers of a column without nulls as they are in memory."""
    width = column.type.bit_width // 8
    data = column.buffers()[1]
    if data is None:
        return memoryview(b"")
    start = column.offset * width
    return memoryview(data)[start:start + len(column) * width]


def texts(column: pyarrow.Array) -> tuple[pyarrow.Array, memoryview]:
    """Return the sizes of the texts of a column without nulls, and these one after the other."""
    sizes = pyarrow.compute.binary_length(column)
    _, offsets, data = column.buffers()
    if not len(column) or data is None:
        return sizes, memoryview(b"")
    ends = memoryview(offsets).cast("B").cast("i")[column.offset:column.offset + len(column) + 1]
    return sizes, memoryview(data)[ends[0]:ends[-1]]


def whole(column: pyarrow.ChunkedArray) -> pyarrow.Array:
    """Return a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pyarrow.concat_arrays(column.chunks or [pyarrow.array([], column.type)])


class Digest:
    """A checksum of lines, whatever the groups they are in."""

    def __init__(self) -> None:
        self._columns = {name: hashlib.sha256() for name in (*NUMBERS, "sizes", "texts")}

    def add(self, table: pyarrow.Table) -> None:
        """Go on with the lines of a table."""
        for name in NUMBERS:
            self._columns[name].update(octets(whole(table.column(name))))
        for name in ("issuer", "stream", "line"):
            sizes, text = texts(whole(table.column(name)))
            self._columns["sizes"].update(octets(sizes))
            self._columns["texts"].update(text)

    def text(self) -> str:
        """Return the checksum so far."""
        return hashlib.sha256(
            b"".join(column.digest() for column in self._columns.values())
        ).hexdigest()


class Summary:
    """What is known of a file whose lines went by."""

    def __init__(self) -> None:
        self.lines = 0
        self._bounds: dict[str, tuple[int, int]] = {}
        self._streams: dict[int, tuple[int, int]] = {}
        self._digest = Digest()

    def add(self, table: pyarrow.Table) -> None:
        """Go on with the lines of a table."""
        if not len(table):
            return
        self.lines += len(table)
        self._digest.add(table)
        for name in ("timestamp", "place"):
            found = pyarrow.compute.min_max(table.column(name).cast(pyarrow.int64()))
            low, high = found["min"].as_py(), found["max"].as_py()
            known = self._bounds.get(name, (low, high))
            self._bounds[name] = (min(low, known[0]), max(high, known[1]))
        ends = table.select(["stream_id", "place"]).group_by("stream_id").aggregate(
            [("place", "max"), ("place", "count")]
        )
        for stream, last, count in zip(
            ends["stream_id"].to_pylist(), ends["place_max"].cast(pyarrow.int64()).to_pylist(),
            ends["place_count"].to_pylist(), strict=True,
        ):
            lines, former = self._streams.get(stream, (0, last))
            self._streams[stream] = (lines + count, max(former, last))

    def values(self) -> dict[str, Any]:
        """Return it all, for JSON; times are epoch microseconds."""
        (first, last), (first_place, last_place) = self._bounds["timestamp"], self._bounds["place"]
        return {
            "lines": self.lines, "first": first, "last": last, "first_place": first_place,
            "last_place": last_place, "content": self._digest.text(),
            "streams": {str(stream): list(found) for stream, found in self._streams.items()},
        }

    def agrees(self, content: str, streams: Collection[int], lines: int) -> bool:
        """Tell whether the lines have this checksum, and so many of them are of some streams."""
        found = sum(count for stream, (count, _) in self._streams.items() if stream in streams)
        return self._digest.text() == content and found == lines


class _Counted:
    """A file to write that counts and digests what goes by."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        """Write some octets."""
        view = memoryview(data)
        self._file.write(data)
        self.sha256.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Return where it is written."""
        return self.size

    def flush(self) -> None:
        """Nothing is held here."""

    def close(self) -> None:
        """Leave the file to who opened it."""
        self.closed = True

    def readable(self) -> bool:
        """It is not."""
        return False

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is not."""
        return False


def write(
    file: IO[bytes], tables: Iterator[pyarrow.Table], limit: int = FILE_SIZE
) -> dict[str, Any]:
    """Write tables of at least one line in all, one file's worth; return what is in the file.

    What is left of `tables` belongs to the next file. `size` and `sha256` are of the file.
    """
    counted, summary = _Counted(file), Summary()
    with parquet.ParquetWriter(
        pyarrow.PythonFile(counted, mode="w"), SCHEMA, compression="zstd",
        compression_level=LEVEL, write_page_checksum=True,
        use_dictionary=["issuer", "stream", "mac", "stream_id"],
        sorting_columns=[parquet.SortingColumn(SCHEMA.get_field_index("place"))],
    ) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, len(table)))
            summary.add(table)
            if counted.size >= limit:
                break
    return {
        **summary.values(), "size": counted.size, "sha256": counted.sha256.hexdigest(),
    }


def opened(file: Any) -> parquet.ParquetFile:
    """Return a file to be read by groups. Raises pyarrow.ArrowException, OSError."""
    return parquet.ParquetFile(file, page_checksum_verification=True)


def groups(
    file: parquet.ParquetFile, numbers: Iterable[int], columns: list[str] | None = None
) -> Iterator[pyarrow.Table]:
    """Yield groups of lines. Raises pyarrow.ArrowException, OSError for what is damaged."""
    for number in numbers:
        yield file.read_row_group(number, columns=columns, use_threads=False)


def read_back(file: Any, progress: Callable[[], None]) -> dict[str, Any]:
    """Return what is in a file, as `write` does, but for what is known of its octets."""
    summary = Summary()
    reader = opened(file)
    for table in groups(reader, range(reader.num_row_groups)):
        table.validate(full=True)
        summary.add(table)
        progress()
    return summary.values()


def overlaps(
    file: parquet.ParquetFile, number: int, start: int | None, end: int | None
) -> bool:
    """Tell whether a group may have lines between two moments (epoch microseconds, exclusive)."""
    found = file.metadata.row_group(number).column(READ_TIMESTAMP).statistics
    if found is None or not found.has_min_max:
        return True
    low, high = found.min_raw, found.max_raw
    return (start is None or high > start) and (end is None or low < end)


READ_TIMESTAMP = SCHEMA.get_field_index("timestamp")


def table_of(rows: Iterable[tuple[Any, ...]]) -> pyarrow.Table:
    """Return rows of the columns of SCHEMA, times in epoch microseconds, as a table."""
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    return pyarrow.Table.from_arrays([
        pyarrow.array(column, field.type)
        for column, field in zip(columns, SCHEMA, strict=True)
    ], schema=SCHEMA)


def without_streams(table: pyarrow.Table, streams: pyarrow.Array) -> pyarrow.Table:
    """Return the lines of other streams than these."""
    found = pyarrow.compute.is_in(table.column("stream_id"), value_set=streams)
    return table.filter(pyarrow.compute.invert(found))
