"""The log lines of a run in one file: Parquet where pyarrow is, else a JSON list for each line.

A line has its time, issuer, stream and text; `aligned`, the same time by the server's clock, and
`error_us`, how wrong that may be. A line that was stamped where it arrived has no error of clocks.

Lines are columns all the way: an object for each of ten millions takes too long.
"""

from __future__ import annotations

import gzip
from array import array
from json.encoder import encode_basestring_ascii as quoted

from walt.client.errors import Failure
from walt.client.experiment.archive import LOGS, PARQUET, fresh
from walt.client.experiment.clocks import DRIFT
from walt.client.scripting.columns import library
from walt.common.records import MICROSECONDS

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from typing import IO, Any

    from walt.client.experiment.clocks import Clock
    from walt.common.records import Block, Source

GROUP = 50_000  # lines of one row group
LEVEL = 4  # of gzip: half the time of 6 for a tenth more
CONSOLE = "console"  # how streams end whose lines the server stamps
SLOT = 100_000  # microseconds for which an offset is worked out once
AS_SURE = 50  # microseconds between the ends of a slot in which a clock was not set
NONE = -1  # an error that there is none of


class Lines:
    """Lines by columns: moments in epoch microseconds, positions in `sources`, texts.

    `aligned` and `errors` are in microseconds, too.
    """

    def __init__(
        self, sources: list[Source], moments: array[int], which: array[int], texts: list[str],
    ) -> None:
        self.sources = sources
        self.moments = moments
        self.which = which
        self.texts = texts
        self.aligned: array[int] = moments
        self.errors: array[int] = array("q", [NONE]) * len(moments)

    def __len__(self) -> int:
        return len(self.moments)


    def only(self, numbers: list[int]) -> Lines:
        """Return those that have these numbers, counted from 0."""
        found = Lines(
            self.sources, array("q", [self.moments[number] for number in numbers]),
            array("i", [self.which[number] for number in numbers]),
            [self.texts[number] for number in numbers],
        )
        found.aligned = array("q", [self.aligned[number] for number in numbers])
        found.errors = array("q", [self.errors[number] for number in numbers])
        return found

    def within(self, spans: list[tuple[int, int]]) -> Lines:
        """Return those whose aligned moment, give or take its error, is within a span."""
        if not len(self):
            return self
        low, high = min(self.aligned), max(self.aligned)
        if any(begin <= low and high <= end for begin, end in spans):
            return self
        return self.only([
            number for number, (moment, error) in enumerate(zip(self.aligned, self.errors))
            if any(begin - max(error, 0) <= moment <= end + max(error, 0) for begin, end in spans)
        ])


def lines_of(block: Block, wanted: Callable[[str], bool]) -> Lines:
    """Return the lines of a block whose stream is wanted. Raises ValueError for what is no text."""
    found = Lines(list(block.sources), block.moments, block.which, block.texts())
    keep = [wanted(stream) for _, stream in found.sources]
    if all(keep):
        return found
    return found.only([number for number, source in enumerate(found.which) if keep[source]])


class Aligner:
    """Aligns lines by the clocks of the nodes that stamp their own ones."""

    def __init__(self, clocks: Mapping[str, Clock]) -> None:
        self._clocks = clocks
        self._sound = {name for name, clock in clocks.items() if not clock.steps()}
        self._known: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in clocks}

    def align(self, lines: Lines) -> None:
        """Fill in `aligned` and `errors`."""
        nodes = [
            None if stream.endswith(CONSOLE) or issuer not in self._clocks else issuer
            for issuer, stream in lines.sources
        ]
        if not any(nodes):
            return
        aligned, errors = [], []
        for moment, source in zip(lines.moments, lines.which):
            node = nodes[source]
            if node is None:
                aligned.append(moment)
                errors.append(NONE)
                continue
            # A clock drifts too little within a slot to work it out again, unless it was set.
            slot = moment // SLOT
            found = self._known[node].get(slot) or self._of_slot(node, slot, moment)
            aligned.append(moment - found[0])
            errors.append(found[1])
        lines.aligned, lines.errors = array("q", aligned), array("q", errors)

    def _of_slot(self, node: str, slot: int, moment: int) -> tuple[int, int]:
        known = self._known[node]
        if len(known) > GROUP:
            known.clear()
        if node in self._sound:
            found = known[slot] = self._offset(node, moment)
            return found
        first, last = (self._offset(node, stamp * SLOT) for stamp in (slot, slot + 1))
        if max(abs(first[0] - last[0]), abs(first[1] - last[1])) > AS_SURE:
            return self._offset(node, moment)
        # Either side of the slot may be a little wrong for what is between them.
        found = known[slot] = (first[0], max(first[1], last[1]) + AS_SURE)
        return found

    def _offset(self, node: str, moment: int) -> tuple[int, int]:
        stamp, error = self._clocks[node].aligned(moment / MICROSECONDS)
        return (
            moment - round(stamp * MICROSECONDS),
            round(error * MICROSECONDS + DRIFT * SLOT + 1),
        )


def write(folder: Path, groups: Iterable[Lines]) -> Path:
    """Write lines, and return the file. Raises Failure, OSError."""
    try:
        library("pyarrow.parquet")
    except Failure:
        target, writer = folder / LOGS, _json_lines
    else:
        target, writer = folder / PARQUET, _parquet
    with fresh(target) as file:
        writer(file, groups)
    for other in {LOGS, PARQUET} - {target.name}:
        (folder / other).unlink(missing_ok=True)  # of an earlier part of the run
    return target


def _json_lines(file: IO[bytes], groups: Iterable[Lines]) -> None:
    with gzip.open(file, "wb", compresslevel=LEVEL) as out:
        for lines in groups:
            sources = [f"{quoted(issuer)}, {quoted(stream)}" for issuer, stream in lines.sources]
            out.write("".join([
                f"[{moment / MICROSECONDS!r}, {sources[source]}, {quoted(text)},"
                f" {aligned / MICROSECONDS!r}, {'null' if error == NONE else error}]\n"
                for moment, source, text, aligned, error in zip(
                    lines.moments, lines.which, lines.texts, lines.aligned, lines.errors
                )
            ]).encode())


def _parquet(file: IO[bytes], groups: Iterable[Lines]) -> None:
    arrow, compute = library("pyarrow"), library("pyarrow.compute")
    moment = arrow.timestamp("us", tz="UTC")
    word = arrow.dictionary(arrow.int32(), arrow.string())
    schema = arrow.schema([
        ("timestamp", moment), ("issuer", word), ("stream", word), ("line", arrow.string()),
        ("aligned", moment), ("error_us", arrow.int64()),
    ])

    def column(kind: Any, values: array[int]) -> Any:
        return arrow.Array.from_buffers(kind, len(values), [None, arrow.py_buffer(values)])

    def table(lines: Lines) -> Any:
        which = column(arrow.int32(), lines.which)
        issuers, streams = zip(*lines.sources)
        errors = column(arrow.int64(), lines.errors)
        return arrow.Table.from_arrays([
            column(moment, lines.moments),
            *(arrow.DictionaryArray.from_arrays(which, arrow.array(words, arrow.string()))
              for words in (issuers, streams)),
            arrow.array(lines.texts, arrow.string()), column(moment, lines.aligned),
            compute.if_else(compute.equal(errors, NONE), None, errors),
        ], schema=schema)

    with library("pyarrow.parquet").ParquetWriter(file, schema) as out:
        held, count = [], 0
        for lines in groups:
            if len(lines):
                held.append(table(lines))
                count += len(lines)
            if count >= GROUP:
                out.write_table(arrow.concat_tables(held).unify_dictionaries())
                held, count = [], 0
        if held:
            out.write_table(arrow.concat_tables(held).unify_dictionaries())
