"""Requests of the FIFO (spec node-protocols §6.3.2): what walt-log-echo and others write there."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

MAX_STREAM_NAME = 1000  # bytes


class Line(NamedTuple):
    """A line for a stream; without time of its own (None), it has the time of its arrival."""

    stream: bytes
    stamp: Optional[float]
    text: bytes


class BadRequest(Exception):
    """A request that is none; the text says why."""


def parse(request: bytes) -> Line:
    """Read `LOG <stream> <text>` or `TSLOG <epoch> <stream> <text>`. Raises BadRequest."""
    kind, _, rest = request.partition(b" ")
    stamp: float | None = None
    if kind == b"TSLOG":
        moment, _, rest = rest.partition(b" ")
        try:
            stamp = float(moment)
        except ValueError:
            stamp = math.nan
        if not math.isfinite(stamp):
            raise BadRequest("TSLOG wants a time in seconds since 1970")
    elif kind != b"LOG":
        raise BadRequest("unknown request; LOG and TSLOG are understood")
    stream, _, text = rest.partition(b" ")
    if not 0 < len(stream) <= MAX_STREAM_NAME:
        raise BadRequest(f"the name of a stream has 1 to {MAX_STREAM_NAME} bytes")
    return Line(stream, stamp, text)
