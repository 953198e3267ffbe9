"""How many lines of which streams an archive has.

Who writes the lines counts them (`logs.json`); the counts are believed while the file of lines is
as long as it was then, and ends with the same checksum. Without them the lines are read.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter

from walt.client.answers import looks_wrong
from walt.client.experiment.archive import INDEX, LOGS, PARQUET

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from walt.client.experiment.archive import Archive

PIECE = 1 << 20  # bytes of lines that are read at once
MOST_STREAMS, LONGEST_STREAM = 20_000, 1000  # that are counted; bytes of a name
TRAILER = 8  # bytes: a gzip file ends with its checksum and its length, Parquet with a length
# A line: its time, its issuer, its stream (which is found), its text; maybe its aligned time.
_STRING = rb'"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
_LINE = re.compile(
    rb"^\[-?[0-9][0-9.e+-]*, %s, (%s), %s(?:, [0-9.e+-]+|, null){0,2}\]$"
    % ((_STRING,) * 3), re.MULTILINE,
)
_END = re.compile("([0-9a-f]{2}){0,%d}" % TRAILER)
_LOOK = {"file": str, "bytes": int, "end": str, "streams": {}}


def index(file: Path, streams: Mapping[str, int]) -> dict[str, Any]:
    """Return what is kept of a file of lines that was just written."""
    size = file.stat().st_size
    with file.open("rb") as lines:
        lines.seek(max(0, size - TRAILER))
        end = lines.read().hex()
    return {"file": file.name, "bytes": size, "end": end, "streams": dict(streams)}


def counts_of(archive: Archive) -> Mapping[str, int] | None:
    """Return the number of lines of each stream, None where there are none, or unreadable ones."""
    if INDEX in archive.names:
        found = archive.json(INDEX)
        if not looks_wrong(found, _LOOK, INDEX) and not any(
            looks_wrong(count, int, INDEX) for count in found["streams"].values()
        ) and (
            found["file"] in {LOGS, PARQUET} & archive.names and _END.fullmatch(found["end"])
        ) and (
            archive.end(found["file"], TRAILER) == (found["bytes"], bytes.fromhex(found["end"]))
        ):
            streams: Mapping[str, int] = found["streams"]
            return streams
        return None
    return _read(archive) if LOGS in archive.names else None


def _read(archive: Archive) -> Counter[str] | None:
    found: Counter[bytes] = Counter()
    inflate, rest = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16), b""  # of gzip
    try:
        for piece in archive.pieces(LOGS):
            while piece:
                text = rest + inflate.decompress(piece, PIECE)
                piece, end = inflate.unconsumed_tail, text.rfind(b"\n") + 1
                text, rest = text[:end], text[end:]
                streams = _LINE.findall(text)
                found.update(streams)
                if len(streams) != text.count(b"\n") or len(rest) > PIECE or _too_many(found):
                    return None
        names = {stream: json.loads(stream) for stream in found}
    except (ValueError, zlib.error):
        return None
    if rest or not inflate.eof:
        return None
    counts: Counter[str] = Counter()
    for stream, count in found.items():
        counts[names[stream]] += count
    return counts


def _too_many(found: Counter[bytes]) -> bool:
    return len(found) > MOST_STREAMS or max(map(len, found), default=0) > LONGEST_STREAM
