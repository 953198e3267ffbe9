"""Which things of two sequences are the same ones, in a time that grows as these do.

What each sequence has once, and the other one too, are anchors, the longest run of them that comes
in the same order in both; around each of them what is equal is the same. Between these, things are
changed, added or left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    Block = tuple[bool, int, int, int, int]


def blocks(one: Sequence[Hashable], two: Sequence[Hashable]) -> Iterator[Block]:
    """Yield, in order, whether parts are the same, and where they are: low, high, start, end.

    The part of `one` is one[low:high], that of `two` is two[start:end].
    """
    last: Block | None = None
    for block in _pieces(one, two):
        equal, low, high, start, end = block
        if low == high and start == end:
            continue
        if last is not None and last[0] == equal:
            last = equal, last[1], high, last[3], end
            continue
        if last is not None:
            yield last
        last = block
    if last is not None:
        yield last


def _pieces(one: Sequence[Hashable], two: Sequence[Hashable]) -> Iterator[Block]:
    at, beside = 0, 0
    for low, start in [*_anchors(one, two), (len(one), len(two))]:
        if low < at or start < beside:
            continue  # it is within what was found around an earlier one
        high, end = at, beside
        while high < low and end < start and one[high] == two[end]:
            high, end = high + 1, end + 1
        yield True, at, high, beside, end
        back = 0
        while low - back > high and start - back > end \
                and one[low - back - 1] == two[start - back - 1]:
            back += 1
        yield False, high, low - back, end, start - back
        at, beside = min(low + 1, len(one)), min(start + 1, len(two))
        yield True, low - back, at, start - back, beside


def _anchors(one: Sequence[Hashable], two: Sequence[Hashable]) -> list[tuple[int, int]]:
    counts = Counter(one), Counter(two)
    places = {thing: place for place, thing in enumerate(two) if counts[1][thing] == 1}
    pairs = [
        (place, places[thing]) for place, thing in enumerate(one)
        if counts[0][thing] == 1 and thing in places
    ]
    # The longest run whose places rise in both: for each length, the pair that ends lowest.
    ends: list[int] = []
    lowest: list[int] = []
    before: list[int] = []
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(lowest, place)
        before.append(ends[length - 1] if length else -1)
        lowest[length:length + 1] = [place]
        ends[length:length + 1] = [number]
    found, number = [], ends[-1] if ends else -1
    while number >= 0:
        found.append(pairs[number])
        number = before[number]
    return found[::-1]

