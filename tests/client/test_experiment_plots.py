"""Plots of results on a terminal."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client.experiment.plotting import HEIGHT, SIGNS, WIDTH, axis_of, plot

NUMBERS = st.floats(-1e300, 1e300, allow_nan=False)


def point(result: list[float], **values: str) -> dict[str, Any]:
    """Return a point that is done."""
    return {"values": values, "outcome": "done", "results": {"delay": result}}


class PlotTests(SynchronousTestCase):
    def test_two_series(self) -> None:
        """Medians over the variable with numbers; a sign for each combination of the others."""
        drawn = plot("delay", [
            point([value * size], MODE=mode, SIZE=str(size))
            for mode, value in (("fast", 1.0), ("slow", 3.0)) for size in (0, 5, 10)
        ])
        assert drawn is not None
        lines = drawn.split("\n")
        self.assertEqual(lines[0], "delay over SIZE, medians:")
        self.assertEqual(lines[1], "  30 |" + " " * 59 + "o")
        self.assertEqual(lines[HEIGHT], "   0 |&")
        self.assertEqual(lines[HEIGHT + 2], "      0" + " " * 57 + "10")
        self.assertEqual(lines[-2:], ["  * MODE=fast", "  o MODE=slow"])
        dots = "".join(lines[1:HEIGHT + 1])
        self.assertEqual((dots.count("*"), dots.count("o"), dots.count("&")), (2, 2, 1))

    def test_nothing_to_plot(self) -> None:
        """Words, two numbers alone, what is no number for a computer, no points."""
        for values in (("a", "b", "c"), ("1", "2", "2"), ("1", "2", "nan"), ("1", "2", "inf"), ()):
            self.assertIsNone(plot("delay", [point([1.0], A=value) for value in values]), values)
        self.assertEqual(axis_of([point([1.0], A="x", B=str(one)) for one in range(3)]), "B")

    def test_many_series(self) -> None:
        """Those without a sign are counted; names act nowhere."""
        drawn = plot("delay", [
            point([1.0], SIZE=str(size), NAME=f"\x1b[31m{name}\n")
            for name in range(len(SIGNS) + 2) for size in range(3)
        ])
        assert drawn is not None
        self.assertIn("and 2 more combinations", drawn)
        self.assertNotIn("\x1b", drawn)
        self.assertEqual(len(drawn.split("\n")), 1 + HEIGHT + 2 + len(SIGNS) + 1)

    @given(st.lists(st.tuples(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=3)), max_size=20))
    def test_any_numbers(self, found: list[tuple[float, list[float]]]) -> None:
        """Whatever is measured, a plot has its size."""
        drawn = plot("delay", [point(result, X=repr(x)) for x, result in found])
        if drawn is not None:
            lines = drawn.split("\n")
            self.assertEqual(len(lines), HEIGHT + 3)
            for line in lines[1:HEIGHT + 1]:
                self.assertLessEqual(len(line.partition("|")[2]), WIDTH)
