"""The order of log lines: that of sending within a stream, by time across streams.

Times come from senders, and from a clock that may be set: they may go back within a stream.
So each line has a place: its time, but not before the place of the previous line of its
stream. Sorted by place, then arrival, every stream keeps its order, and streams are merged
by time.
"""

from __future__ import annotations

from itertools import accumulate

from walt.server.domain.logs.model import LogBlock

BEGINNING = float("-inf")  # the last place of a stream without lines


def placed(block: LogBlock, last: float) -> tuple[LogBlock, float]:
    """Return a block with the places of its lines, and the place of its last line.

    `last` is the place of the line before it in its stream.
    """
    if block.stamps is None:
        if block.moment >= last:
            return block, block.moment
        return block._replace(places=[last] * block.line_count), last
    stamps = list(block.stamps)
    if stamps[0] >= last and stamps == sorted(stamps):  # nearly always, and found fast
        return block, stamps[-1]
    _, *places = accumulate(stamps, max, initial=last)
    return block._replace(places=places), places[-1]
