"""What two sequences have in common, however long they are."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client.experiment.pairing import blocks

MANY = 20_000


class Thing:
    """A thing that counts how often it is looked at."""

    looks = 0

    def __init__(self, name: int) -> None:
        self.name = name

    def __hash__(self) -> int:
        Thing.looks += 1
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        Thing.looks += 1
        return isinstance(other, Thing) and other.name == self.name


class PairingTests(SynchronousTestCase):
    @settings(max_examples=300)
    @given(st.lists(st.integers(0, 8), max_size=20), st.lists(st.integers(0, 8), max_size=20))
    def test_parts(self, one: list[int], two: list[int]) -> None:
        """They cover both sequences in order; equal parts are equal, and no two are neighbours."""
        at, beside, before = 0, 0, None
        for equal, low, high, start, end in blocks(one, two):
            self.assertEqual((low, start), (at, beside))
            self.assertNotEqual(equal, before)
            if equal:
                self.assertEqual(one[low:high], two[start:end])
            at, beside, before = high, end, equal
        self.assertEqual((at, beside), (len(one), len(two)))

    def test_what_is_found(self) -> None:
        """One that was added, left out, changed or moved is what differs."""
        for one, two, expected in (
            ("abcde", "abcde", [(True, 0, 5, 0, 5)]),
            ("abcde", "abXcde", [(True, 0, 2, 0, 2), (False, 2, 2, 2, 3), (True, 2, 5, 3, 6)]),
            ("abcde", "abde", [(True, 0, 2, 0, 2), (False, 2, 3, 2, 2), (True, 3, 5, 2, 4)]),
            ("aaaa", "aaba", [(True, 0, 2, 0, 2), (False, 2, 3, 2, 3), (True, 3, 4, 3, 4)]),
            ("aaa", "aaaa", [(True, 0, 3, 0, 3), (False, 3, 3, 3, 4)]),
            ("", "ab", [(False, 0, 0, 0, 2)]), ("", "", []),
        ):
            self.assertEqual(list(blocks(one, two)), expected, (one, two))

    def test_many(self) -> None:
        """Twenty thousand things are looked at some times each, whatever changed."""
        names = list(range(MANY))
        half = [number // 2 for number in names]
        for one, two in (
            (names, names), (names, names[::-1]), (names, [number + MANY for number in names]),
            (half, half[1:]), ([0] * MANY, [0] * (MANY - 1) + [1]),
            ([0, 1] * (MANY // 2), [1, 0] * (MANY // 2)),
            (names, [number if number % 3 else -number for number in names]),
        ):
            things = [list(map(Thing, sequence)) for sequence in (one, two)]
            Thing.looks = 0
            list(blocks(*things))
            self.assertLess(Thing.looks, 20 * MANY)
