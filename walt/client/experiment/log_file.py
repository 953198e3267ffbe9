"""The log lines of a run in one file: Parquet where pyarrow is, else a JSON list for each line.

A line has its time, issuer, stream and text; `aligned`, the same time by the server's clock, and
`error_us`, how wrong that may be. A line that was stamped where it arrived has no error of clocks.
"""

from __future__ import annotations

import gzip
from json.encoder import encode_basestring_ascii as quoted

from walt.client.errors import Failure
from walt.client.experiment.archive import LOGS, PARQUET, fresh
from walt.client.scripting.columns import library

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import IO, Any

    # Epoch seconds, issuer, stream, text, epoch seconds by the server's clock, microseconds.
    Row = tuple[float, str, str, str, float, "int | None"]

GROUP = 100_000  # lines of one row group
LEVEL = 4  # of gzip: half the time of 6 for a tenth more
CONSOLE = "console"  # how streams end whose lines the server stamps


def write(folder: Path, groups: Iterable[list[Row]]) -> Path:
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


def _json_lines(file: IO[bytes], groups: Iterable[list[Row]]) -> None:
    sources: dict[tuple[str, str], str] = {}
    with gzip.open(file, "wb", compresslevel=LEVEL) as out:
        for rows in groups:
            lines = []
            for stamp, issuer, stream, text, aligned, error in rows:
                source = sources.get((issuer, stream))
                if source is None:
                    source = sources[issuer, stream] = f"{quoted(issuer)}, {quoted(stream)}"
                told = "null" if error is None else error
                lines.append(f"[{stamp!r}, {source}, {quoted(text)}, {aligned!r}, {told}]\n")
            out.write("".join(lines).encode())


def _parquet(file: IO[bytes], groups: Iterable[list[Row]]) -> None:
    arrow = library("pyarrow")
    moment = arrow.timestamp("us", tz="UTC")
    word = arrow.dictionary(arrow.int32(), arrow.string())
    schema = arrow.schema([
        ("timestamp", moment), ("issuer", word), ("stream", word), ("line", arrow.string()),
        ("aligned", moment), ("error_us", arrow.int64()),
    ])
    with library("pyarrow.parquet").ParquetWriter(file, schema) as out:
        for rows in _grouped(groups):
            stamps, issuers, streams, texts, aligned, errors = zip(*rows)
            columns: list[Any] = [
                [round(stamp * 1e6) for stamp in stamps], issuers, streams, texts,
                [round(stamp * 1e6) for stamp in aligned], errors,
            ]
            out.write_table(arrow.Table.from_arrays([
                arrow.array(column, field.type) for column, field in zip(columns, schema)
            ], schema=schema))


def _grouped(groups: Iterable[list[Row]]) -> Iterable[list[Row]]:
    held: list[Row] = []
    for rows in groups:
        held += rows
        if len(held) >= GROUP:
            yield held
            held = []
    if held:
        yield held


def aligner(clocks: Any) -> Callable[[float, str, str], tuple[float, int | None]]:
    """Return what tells when a line was written by the server's clock, and the error.

    `clocks` are those of the nodes that stamp their own lines.
    """

    def align(stamp: float, issuer: str, stream: str) -> tuple[float, int | None]:
        clock = None if stream.endswith(CONSOLE) else clocks.get(issuer)
        if clock is None:
            return stamp, None
        moment, error = clock.aligned(stamp)
        return round(moment, 6), round(error * 1e6 + 0.5)

    return align
