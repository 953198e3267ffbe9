"""Rows with named columns, as values of pandas and pyarrow when a script has these."""

from __future__ import annotations

from array import array
from itertools import accumulate

from walt.client.errors import Failure
from walt.client.formats import pip_install

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from walt.common.records import Block

    Columns = dict[str, str]  # by name, one of KINDS

# `word` is a text that occurs in many rows, `moment` a number of epoch seconds.
KINDS = ("moment", "word", "text", "whole", "number")
MICROSECONDS = 1e6


def library(name: str) -> Any:
    """Return a library. Raises Failure with how to install it."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise Failure(
            f"this needs the library {name} in the Python that runs your script; run:"
            f" {pip_install(name)}"
        ) from None


def _values(columns: Columns, rows: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    """Return the values of each column; moments are whole microseconds."""
    values = [list(column) for column in zip(*rows)] or [[] for _ in columns]
    for number, kind in enumerate(columns.values()):
        if kind == "moment":
            values[number] = [
                None if stamp is None else round(stamp * MICROSECONDS) for stamp in values[number]
            ]
    return dict(zip(columns, values))


def arrow_batch(columns: Columns, rows: Iterable[Sequence[Any]]) -> Any:
    """Return a pyarrow.RecordBatch; moments are in UTC, words are a dictionary."""
    pyarrow = library("pyarrow")
    schema = arrow_schema(columns)
    values = _values(columns, rows)
    return pyarrow.RecordBatch.from_arrays(
        [pyarrow.array(values[field.name], field.type) for field in schema], schema=schema
    )


def arrow_schema(columns: Columns) -> Any:
    """Return the pyarrow.Schema of such batches."""
    pyarrow = library("pyarrow")
    types = {
        "moment": pyarrow.timestamp("us", tz="UTC"), "text": pyarrow.string(),
        "word": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "whole": pyarrow.int64(), "number": pyarrow.float64(),
    }
    return pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])


def pandas_frame(columns: Columns, rows: Iterable[Sequence[Any]]) -> Any:
    """Return a pandas.DataFrame; moments are in UTC, words are categories."""
    pandas = library("pandas")
    values = _values(columns, rows)
    made = {
        "moment": lambda column: pandas.Series(
            pandas.to_datetime(pandas.array(column, dtype="Int64"), unit="us", utc=True)
        ).astype("datetime64[us, UTC]"),
        "word": lambda column: pandas.Categorical(column),
        "text": lambda column: pandas.Series(column, dtype=None if column else "object"),
        "whole": lambda column: pandas.Series(column, dtype="int64"),
        "number": lambda column: pandas.Series(column, dtype="float64"),
    }
    return pandas.DataFrame({
        name: made[kind](values[name]) for name, kind in columns.items()
    })


class LogColumns:
    """Log lines on their way to pyarrow: their columns, no object for each line."""

    def __init__(self, columns: Columns) -> None:
        self._schema = arrow_schema(columns)
        self._words: tuple[dict[str, int], dict[str, int]] = ({}, {})  # issuers, streams
        self._codes = (array("i"), array("i"))
        self._moments = array("q")
        self._sizes = array("i")
        self._text = bytearray()

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, block: Block) -> None:
        """Take over the records of a block."""
        for part, (words, codes) in enumerate(zip(self._words, self._codes)):
            known = [words.setdefault(source[part], len(words)) for source in block.sources]
            codes.extend(map(known.__getitem__, block.which))
        self._moments.extend(block.moments)
        self._sizes.extend(block.sizes)
        self._text += block.text

    def take(self, size: int) -> Any:
        """Return the first lines as a pyarrow.RecordBatch; they are not held any more."""
        pyarrow = library("pyarrow")
        sizes = _cut(self._sizes, size)
        ends = array("i", accumulate(sizes, initial=0))
        text = bytes(self._text[:ends[-1]])
        del self._text[:ends[-1]]
        count = len(sizes)

        def numbers(kind: Any, values: array[int]) -> Any:
            return pyarrow.Array.from_buffers(kind, count, [None, pyarrow.py_buffer(values)])

        issuers, streams = (
            pyarrow.DictionaryArray.from_arrays(
                numbers(pyarrow.int32(), _cut(codes, size)), pyarrow.array(list(words))
            )
            for words, codes in zip(self._words, self._codes)
        )
        lines = pyarrow.StringArray.from_buffers(
            count, pyarrow.py_buffer(ends), pyarrow.py_buffer(text)
        )
        lines.validate(full=True)
        moments = numbers(self._schema.field(0).type, _cut(self._moments, size))
        return pyarrow.RecordBatch.from_arrays(
            [moments, issuers, streams, lines], schema=self._schema
        )


def _cut(values: array[int], size: int) -> array[int]:
    """Take the first ones out of an array."""
    head = values[:size]
    del values[:size]
    return head


class Frame(list):
    """Rows, each a named tuple, which pandas and pyarrow can take over."""

    def __init__(self, columns: Columns, rows: Iterable[Sequence[Any]]) -> None:
        super().__init__(rows)
        self.columns = columns

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame"""
        return pandas_frame(self.columns, self)

    def to_arrow(self) -> Any:
        """Return a pyarrow.Table"""
        return library("pyarrow").Table.from_batches([arrow_batch(self.columns, self)])

    def to_parquet(self, path: str) -> None:
        """Write an Apache Parquet file"""
        library("pyarrow.parquet").write_table(self.to_arrow(), path)
