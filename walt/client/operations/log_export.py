"""Stored log lines in a file that other programs read."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from contextlib import contextmanager

from walt.client.errors import Failure
from walt.client.formats import pip_install
from walt.client.log_lines import json_lines, received

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from walt.common.records import Record

COLUMNS = ("timestamp", "issuer", "stream", "line")
EVERY = 50  # groups of lines after which it is told how many there are
GROUP = 100_000  # lines in one row group of Parquet
# Files that are open already: of this process, and of the shell that started it (`>(gzip > f)`).
_OPEN = re.compile(r"/(?:dev|proc/self)/fd/([0-9]+)")
_NAMED = {"/dev/stdout": 1, "/dev/stderr": 2}


def export(
    query: dict[str, Any], format: str, path: str, watch: Callable[[int], object]
) -> int:
    """Write the stored lines of a query; the file appears when it is whole.

    Return their number. `watch` is told, from time to time, how many there are so far.
    Raises Failure.
    """
    with _destination(path) as written:
        return _write(WRITERS[format](written), query, watch)


def open_already(path: str) -> int | None:
    """Return the descriptor that a path such as /dev/stdout names, None for another path."""
    found = _OPEN.fullmatch(path)
    return int(found[1]) if found is not None else _NAMED.get(path)


@contextmanager
def _destination(path: str) -> Iterator[str | int]:
    """Give the file to write: a new one, which takes the place of `path` when it is whole.

    A device or a pipe is written itself; links, and the rights of a file that is replaced, stay.
    A descriptor is given for what is open already: the shell may have put it at the end of a
    file, which must not be emptied nor replaced.
    """
    place, temporary = os.path.realpath(path), ""
    try:
        descriptor = open_already(path)
        if descriptor is not None:
            yield os.dup(descriptor)
            return
        mode = os.stat(place).st_mode if os.path.exists(place) else None
        if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            yield place
            return
        descriptor, temporary = tempfile.mkstemp(prefix=".walt-", dir=os.path.dirname(place))
        os.close(descriptor)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask() if mode is None else stat.S_IMODE(mode))
        os.replace(temporary, place)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(
    writer: _JsonLines | _Csv | _Parquet, query: dict[str, Any], watch: Callable[[int], object]
) -> int:
    count = turn = 0
    try:
        for records in received(dict(query, history=True, realtime=False)):
            writer.write(records)
            count += len(records)
            turn += 1
            if turn % EVERY == 0:
                watch(count)
    finally:
        writer.close()
    return count


class _TextFile:
    """What formats made of text share."""

    def __init__(self, path: str | int) -> None:
        self._file = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _JsonLines(_TextFile):
    """One JSON object a line."""

    def write(self, records: list[Record]) -> None:
        """Write some records."""
        self._file.write(json_lines(records))


class _Csv(_TextFile):
    """Comma-separated values with a first line of names (RFC 4180)."""

    def __init__(self, path: str | int) -> None:
        import csv

        super().__init__(path)
        self._csv = csv.writer(self._file)
        self._csv.writerow(COLUMNS)

    def write(self, records: list[Record]) -> None:
        """Write some records."""
        self._csv.writerows(records)


class _Parquet:
    """Apache Parquet, through pyarrow."""

    def __init__(self, path: str | int) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise Failure(
                "Parquet needs the library pyarrow in the Python that runs walt; run:"
                f" {pip_install('pyarrow')}"
                " (or use --format csv or jsonl)"
            ) from None
        self._arrow = pyarrow
        self._schema = pyarrow.schema([
            ("timestamp", pyarrow.timestamp("us", tz="UTC")), ("issuer", pyarrow.string()),
            ("stream", pyarrow.string()), ("line", pyarrow.string()),
        ])
        self._file = open(path, "wb")  # noqa: SIM115 (closed by close)
        self._out = parquet.ParquetWriter(self._file, self._schema)
        self._held: list[Record] = []

    def write(self, records: list[Record]) -> None:
        """Keep records until a group is whole."""
        self._held += records
        if len(self._held) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        stamps, issuers, streams, lines = zip(*self._held) if self._held else ((),) * 4
        columns = [[round(stamp * 1e6) for stamp in stamps], issuers, streams, lines]
        self._out.write_table(self._arrow.Table.from_arrays([
            self._arrow.array(column, field.type)
            for column, field in zip(columns, self._schema)
        ], schema=self._schema))
        self._held = []

    def close(self) -> None:
        """Write the last group."""
        self._flush()
        self._out.close()
        self._file.close()


WRITERS: dict[str, Any] = {"JSONL": _JsonLines, "CSV": _Csv, "PARQUET": _Parquet}
