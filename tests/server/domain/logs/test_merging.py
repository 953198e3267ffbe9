"""Lines of several sources come in one order."""

from __future__ import annotations

from array import array
from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from walt.common.records import Block
from walt.server.domain.logs.merging import FIRST, MergedSource, Placed, next_merged

Line = tuple[int, int, str]  # place, arrival, text


def placed(lines: list[Line]) -> Placed:
    """Return lines as a block of one of two streams each."""
    texts = [text.encode() for *_, text in lines]
    return Placed(
        Block(
            [("m", "even"), ("m", "odd")], array("q", [place for place, *_ in lines]),
            array("i", [arrival % 2 for _, arrival, _ in lines]),
            array("i", map(len, texts)), b"".join(texts),
        ),
        array("q", [place for place, *_ in lines]), array("q", [one for _, one, _ in lines]),
    )


class Source:
    """Blocks of lines, one after the other."""

    def __init__(self, lines: list[Line], size: int) -> None:
        self._blocks = [lines[start:start + size] for start in range(0, len(lines), size)]
        self.asked = 0

    async def following(self) -> Placed:
        """Return the next ones."""
        self.asked += 1
        return placed(self._blocks.pop(0) if self._blocks else [])


LINES = st.lists(st.tuples(st.integers(-5, 20), st.integers(0, 3), st.text("aé", max_size=3)))


class MergingTests(SynchronousTestCase):
    def merged(self, sources: list[MergedSource]) -> list[tuple[int, str, str]]:
        """Return moment, stream and text of all lines."""
        found = []
        while block := self.now(next_merged(sources)):
            found += [(round(moment * 1e6), stream, text)
                      for moment, _, stream, text in block.records()]
        return found

    def now(self, coroutine: Coroutine[Any, Any, Block]) -> Block:
        """Run a coroutine that waits for nothing."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    @given(LINES, st.lists(LINES, max_size=3), st.integers(1, 5))
    def test_any(self, one: list[Line], others: list[list[Line]], size: int) -> None:
        """They are those of all sources, sorted, however these are cut."""
        numbered = numbered_apart([one, *others])
        sources = [MergedSource(Source(sorted(lines), size).following) for lines in numbered]
        expected = [
            (place, ("even", "odd")[arrival % 2], text)
            for place, arrival, text in sorted(line for lines in numbered for line in lines)
        ]
        self.assertEqual(self.merged(sources), expected)

    def test_nobody_is_asked_early(self) -> None:
        """A source whose lines come later is left alone until then."""
        early = Source([(n, n, "a") for n in range(10)], 2)
        late = Source([(n, n, "b") for n in range(100, 104)], 2)
        sources = [MergedSource(early.following, FIRST), MergedSource(late.following, (100, 0))]
        first = self.now(next_merged(sources))
        self.assertEqual((len(first), early.asked, late.asked), (2, 1, 0))
        self.assertEqual(len(self.merged(sources)), 12)
        self.assertEqual(self.merged(sources), [])
        self.assertEqual(late.asked, 3)


def numbered_apart(sources: list[list[Line]]) -> list[list[Line]]:
    """Return lines with an arrival of their own each: no two lines have the same key."""
    number, found = 0, []
    for lines in sources:
        made = []
        for place, arrival, text in lines:
            number += 1
            made.append((place, 4 * number + arrival, text))
        found.append(made)
    return found
