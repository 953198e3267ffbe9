"""Log lines of several sources in one order: by place, then arrival.

Nothing is done line by line, unless lines of several sources alternate.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate

from walt.common.records import Block

Key = tuple[int, int]  # place in epoch microseconds, arrival
FIRST: Key = (-1 << 63, 0)
LAST: Key = (1 << 63, 0)
ENOUGH = 1000  # lines that are put together when those of several sources alternate


class Placed:
    """A block whose lines are in order, with the place and the arrival of each."""

    __slots__ = ("arrivals", "block", "ends", "places")

    def __init__(self, block: Block, places: array[int], arrivals: array[int]) -> None:
        self.block, self.places, self.arrivals = block, places, arrivals
        self.ends = array("q", accumulate(block.sizes, initial=0))

    def __len__(self) -> int:
        return len(self.block)

    def key(self, number: int) -> Key:
        """Return where one line is."""
        return self.places[number], self.arrivals[number]

    def before(self, key: Key, low: int) -> int:
        """Return the number of the first line from `low` on that does not come before `key`."""
        high = len(self)
        if low < high and self.key(high - 1) < key:
            return high
        while low < high:
            middle = (low + high) // 2
            if self.key(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low

    def part(self, start: int, end: int) -> Block:
        """Return some of the lines."""
        block, cut = self.block, slice(start, end)
        if start == 0 and end == len(self):
            return block
        return Block(
            block.sources, block.moments[cut], block.which[cut], block.sizes[cut],
            block.text[self.ends[start]:self.ends[end]],
        )


class MergedSource:
    """One source: `following` returns its next lines, empty at its end.

    No line is placed before `bound`: it is not asked earlier than that.
    """

    def __init__(
        self, following: Callable[[], Awaitable[Placed]], bound: Key = FIRST
    ) -> None:
        self._following = following
        self._held: Placed | None = None
        self._start = 0
        self.bound = bound

    @property
    def is_loaded(self) -> bool:
        """Whether `bound` is the place of a line that is held."""
        return self._held is not None

    async def load(self) -> None:
        """Ask for the next lines."""
        held = await self._following()
        self._held, self._start = (held, 0) if held else (None, 0)
        self.bound = held.key(0) if held else LAST

    def take(self, limit: Key) -> Block:
        """Return the lines that are held and come before `limit`, at least one."""
        held, start = self._held, self._start
        assert held is not None
        end = max(start + 1, held.before(limit, start))
        self._start = end
        if end == len(held):
            self._held = None  # what follows comes after `bound`, too
        else:
            self.bound = held.key(end)
        return held.part(start, end)


async def next_merged(sources: Sequence[MergedSource]) -> Block:
    """Return the next lines of several sources in order, empty when all are at their end."""
    parts: list[Block] = []
    count = 0
    while count < ENOUGH:
        first, *others = sorted(sources, key=lambda source: source.bound)
        if first.bound == LAST:
            break
        if not first.is_loaded:
            if parts:
                break
            await first.load()
            continue
        parts.append(first.take(others[0].bound if others else LAST))
        count += len(parts[-1])
    return joined(parts)


def joined(parts: Sequence[Block]) -> Block:
    """Return blocks as one."""
    if len(parts) == 1:
        return parts[0]
    positions: dict[tuple[str, str], int] = {}
    moments, which, sizes = array("q"), array("i"), array("i")
    for part in parts:
        known = [
            positions.setdefault(part.sources[number], len(positions)) for number in part.which
        ]
        moments.extend(part.moments)
        which.extend(known)
        sizes.extend(part.sizes)
    return Block(
        list(positions), moments, which, sizes, b"".join(part.text for part in parts)
    )
