from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.server.runtime import memory

PIECES, SIZE = 20_000, 3000  # more than Python's own allocator takes


class Knot:
    """Refers to itself: the collector alone finds it."""

    def __init__(self) -> None:
        self.me = self


def resident() -> int:
    """Return the bytes of this process that are in memory (proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        thresholds = gc.get_threshold()

        def as_before() -> None:
            gc.unfreeze()
            gc.set_threshold(*thresholds)
            gc.enable()

        self.addCleanup(as_before)

    def test_start(self) -> None:
        """While the start builds nothing is collected; what it built is left alone."""
        before = gc.get_freeze_count()
        looks = memory.Looks()
        memory.building(looks)
        self.addCleanup(gc.callbacks.remove, looks)
        self.assertFalse(gc.isenabled())
        built = [Knot() for _ in range(1000)]
        memory.built()
        self.assertTrue(gc.isenabled())
        self.assertGreaterEqual(gc.get_freeze_count() - before, len(built))

    def test_afterwards(self) -> None:
        """What comes and goes after the start does not stay."""
        memory.built()
        knots = [Knot() for _ in range(1000)]
        seen = [weakref.ref(knot) for knot in knots]
        knots.clear()
        gc.collect()
        self.assertEqual([one for one in seen if one() is not None], [])

    def test_what_grows_later(self) -> None:
        """Is put aside after a long look that leaves much, without what was garbage."""
        def look(looks: memory.Looks, generation: int = 2) -> None:
            """Have the collector look once, and put aside what is beyond these limits."""
            memory.building(looks)
            try:
                gc.collect(generation)
            finally:
                gc.callbacks.remove(looks)

        memory.built()
        kept, lost = [Knot() for _ in range(1000)], [Knot() for _ in range(1000)]
        seen = [weakref.ref(knot) for knot in lost]
        lost.clear()
        before = gc.get_freeze_count()
        never, long = memory.Looks(long=float("inf")), memory.Looks(long=-1.0)
        look(never, 1)
        look(never)
        self.assertEqual(gc.get_freeze_count(), before)
        look(long)
        self.assertEqual(gc.get_freeze_count(), before)
        much = memory.Looks(long=-1.0, many=len(kept) - 1)
        look(much, 1)
        self.assertEqual(gc.get_freeze_count(), before)
        look(much)
        self.assertGreaterEqual(gc.get_freeze_count() - before, len(kept))
        self.assertEqual([one for one in seen if one() is not None], [])

    def test_given_back(self) -> None:
        """What is free between what stays leaves the process."""
        pieces = [bytes(SIZE) for _ in range(PIECES)]
        kept = pieces[::100]
        before = resident()
        pieces.clear()
        memory.give_back()
        self.assertGreater(before - resident(), PIECES * SIZE // 2)
        self.assertEqual(len(kept), PIECES // 100)
