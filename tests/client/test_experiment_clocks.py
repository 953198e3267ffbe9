"""Stamps of clocks that drift and are set, against what a perfect clock showed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow.parquet import read_table
from twisted.trial.unittest import SynchronousTestCase

from tests.client.local_shells import LocalShells
from walt.client.errors import Failure
from walt.client.experiment import clocks, log_file, timing
from walt.client.experiment.clocks import (
    DRIFT,
    Clock,
    Exchange,
    Sample,
    Step,
    best,
    relative,
)
from walt.client.experiment.log_file import Aligner, lines_of, write
from walt.client.experiment.timing import exchange
from walt.client.scripting.running import Result
from walt.common.records import block_of

BEGIN, LASTS, EVERY = 1.7e9, 1500.0, 300.0


class Drifting:
    """A clock with an offset, a drift that changes, and steps: (when, seconds)."""

    def __init__(
        self, offset: float, drifts: list[float], steps: list[tuple[float, float]]
    ) -> None:
        self._offset, self._drifts, self._steps = offset, drifts, steps

    def shows(self, moment: float) -> float:
        """Return what it shows."""
        told, past = moment + self._offset, moment - BEGIN
        lasts = LASTS / len(self._drifts)
        for number, drift in enumerate(self._drifts):
            told += drift * min(max(past - number * lasts, 0.0), lasts)
        return told + sum(seconds for when, seconds in self._steps if past >= when)


def sampled(clock: Drifting, trips: list[tuple[float, float]]) -> Clock:
    """Return what exchanges tell, each trip being its two ways in seconds."""
    samples, moment, number = [], BEGIN, 0
    while moment <= BEGIN + LASTS:
        exchanges = []
        for _ in range(5):
            there, back = trips[number % len(trips)]
            number += 1
            exchanges.append(Exchange(moment, clock.shows(moment + there), moment + there + back))
            moment += there + back
        samples.append(best(exchanges))
        moment += EVERY
    return Clock(samples)


TRIPS = st.lists(
    st.tuples(st.floats(0.0001, 0.05), st.floats(0.0001, 0.05)), min_size=1, max_size=7
)
OFFSETS = st.floats(-1000.0, 1000.0)
DRIFTS = st.lists(st.floats(-DRIFT, DRIFT), min_size=1, max_size=5)


class ClockTests(SynchronousTestCase):
    def right(self, clock: Drifting, known: Clock) -> float:
        """Return the share of marks that are within their stated error."""
        moments = [BEGIN + LASTS * number / 150 for number in range(151)]
        good = 0
        for moment in moments:
            aligned, error = known.aligned(clock.shows(moment))
            good += abs(aligned - moment) <= error + 1e-6
        return good / len(moments)

    @settings(max_examples=30, deadline=None)
    @given(OFFSETS, DRIFTS, TRIPS)
    def test_drift(self, offset: float, drifts: list[float], trips: Any) -> None:
        """Whatever a clock drifts within 100 ppm, stamps are within their errors."""
        clock = Drifting(offset, drifts, [])
        known = sampled(clock, trips)
        self.assertEqual(known.steps(), [])
        self.assertEqual(self.right(clock, known), 1.0)

    @settings(max_examples=30, deadline=None)
    @given(
        OFFSETS, DRIFTS, TRIPS, st.floats(10.0, LASTS / 3), st.lists(
            st.floats(0.5, 3600.0) | st.floats(-3600.0, -0.5), min_size=1, max_size=2
        ),
    )
    def test_steps(
        self, offset: float, drifts: list[float], trips: Any, begin: float, sizes: list[float]
    ) -> None:
        """A clock that is set within the run has large errors there, and they are right."""
        steps = [(begin + 700.0 * number, size) for number, size in enumerate(sizes)]
        clock = Drifting(offset, drifts, steps)
        known = sampled(clock, trips)
        self.assertGreaterEqual(self.right(clock, known), 0.99)
        if len(steps) == 1:
            (found,) = known.steps()
            self.assertTrue(found.after - 1 <= BEGIN + steps[0][0] <= found.before + 1)
            self.assertLess(abs(found.seconds - steps[0][1]), 0.3)

    def test_least_round_trip(self) -> None:
        """The exchange that took least is kept; what cuts digits adds to the error."""
        found = best([Exchange(0.0, 10.0, 1.0), Exchange(5.0, 15.0, 5.1)], 0.01)
        self.assertAlmostEqual(found.moment, 5.05)
        self.assertAlmostEqual(found.offset, 9.955)
        self.assertAlmostEqual(found.error, 0.055)
        self.assertRaises(ValueError, best, [])
        self.assertRaises(ValueError, Clock, [])

    def test_beside_a_third_clock(self) -> None:
        """Offsets are subtracted, errors are added."""
        found = relative(Sample(10.0, 3.0, 0.1), Sample(12.0, 1.0, 0.2))
        self.assertEqual(
            (found.moment, found.offset, round(found.error, 6)), (11.0, 2.0, 0.3002)
        )

    def test_flagged(self) -> None:
        """A step lies between two samples; one sample alone serves for all stamps."""
        known = Clock([Sample(0.0, 0.0, 0.01), Sample(300.0, 5.0, 0.01), Sample(600.0, 5.0, 0.01)])
        self.assertEqual(known.steps(), [Step(0.0, 300.0, 5.0)])
        self.assertEqual(known.worst().offset, 5.0)
        moment, error = known.aligned(100.0)
        self.assertTrue(moment - error <= 95.0 and moment + error >= 100.0, (moment, error))
        moment, error = Clock([Sample(0.0, 1.0, 0.01)]).aligned(101.0)
        self.assertAlmostEqual(error, 0.02)
        self.assertAlmostEqual(moment, 100.0)

    def test_lines(self) -> None:
        """They are the same in both formats of files; those of consoles are the server's."""
        block = block_of([
            (107.0, "n1", stream, 'a "b"\n\u00e9') for stream in ("mark", "no", "console")
        ] + [(200.0, "n1", "mark", "late"), (107.0, "n2", "mark", "")])
        lines = lines_of(block, lambda stream: stream != "no")
        Aligner({"n1": Clock([Sample(100.0, 7.0, 0.01)])}).align(lines)
        lines = lines.within([(0, 150_000_000)])
        rows = [
            (107.0, "n1", "mark", 'a "b"\n\u00e9', 100.0, 10011),
            (107.0, "n1", "console", 'a "b"\n\u00e9', 107.0, None),
            (107.0, "n2", "mark", "", 107.0, None),
        ]
        nothing = lines_of(block_of([]), lambda stream: True)
        place = Path(self.mktemp())
        place.mkdir()
        self.assertEqual(write(place, [lines, nothing]).name, "logs.parquet")
        found = read_table(place / "logs.parquet").to_pylist()
        self.assertEqual(
            [(row["timestamp"].timestamp(), row["issuer"], row["stream"], row["line"],
              row["aligned"].timestamp(), row["error_us"]) for row in found], rows,
        )

        def library(name: str) -> None:
            raise Failure("no pyarrow")

        self.patch(log_file, "library", library)
        self.assertEqual(write(place, [lines]).name, "logs.jsonl.gz")
        with gzip.open(place / "logs.jsonl.gz") as lines:
            self.assertEqual([tuple(json.loads(line)) for line in lines], rows)
        self.assertFalse((place / "logs.parquet").exists())

    def test_slots(self) -> None:
        """Offsets are worked out once for a while; the errors cover that."""
        clock = Drifting(3.0, [DRIFT], [])
        known = sampled(clock, [(0.001, 0.001)])
        moments = [BEGIN + number / 97 for number in range(1000)]
        lines = lines_of(block_of(
            [(clock.shows(moment), "n1", "mark", "") for moment in moments]
        ), lambda stream: True)
        Aligner({"n1": known}).align(lines)
        for moment, aligned, error in zip(moments, lines.aligned, lines.errors, strict=True):
            self.assertLessEqual(abs(moment * 1e6 - aligned), error)

    def test_slots_of_a_clock_that_was_set(self) -> None:
        """A week of samples: what is worked out for a line does not grow with it, and is right."""
        clock = Drifting(3.0, [DRIFT], [(600.5, 40.0)])
        known = sampled(clock, [(0.001, 0.001)])
        known = Clock([
            *known._samples,
            *(Sample(BEGIN + 2000 + 300 * number, 43.0 + DRIFT * LASTS, 0.001)
              for number in range(2000)),
        ])
        moments = [BEGIN + number * 0.01 for number in range(150_000)]
        lines = lines_of(block_of(
            [(clock.shows(moment), "n1", "mark", "") for moment in moments]
        ), lambda stream: True)
        asked, looked = [0], [0]
        aligned, between = Clock.aligned, clocks._between

        def counted(self: Clock, stamp: float) -> tuple[float, float]:
            asked[0] += 1
            return aligned(self, stamp)

        def counting(*words: Any) -> tuple[float, float] | None:
            looked[0] += 1
            return between(*words)

        self.patch(Clock, "aligned", counted)
        self.patch(clocks, "_between", counting)
        Aligner({"n1": known}).align(lines)
        self.assertLess(asked[0], 40_000)
        self.assertLess(looked[0], 10 * asked[0])
        for moment, found, error in zip(moments, lines.aligned, lines.errors, strict=True):
            self.assertLessEqual(abs(moment * 1e6 - found), error)

    def test_this_machine_is_set(self) -> None:
        """Nobody sets the clock that exchanges are measured with."""
        wall = [1000.0, 990.0] * 10

        class Time:
            monotonic = staticmethod(iter(range(100)).__next__)
            time = staticmethod(lambda: wall.pop(0))

        self.patch(timing, "time", Time)
        shells = LocalShells(lambda node, text, limit: Result(0, "1700000000.500000000\n", ""))
        found = best(exchange(shells, "n1")[0] for _ in range(3))
        self.assertEqual((found.error, found.offset), (0.5, 1.7e9))

    def test_what_nodes_answer(self) -> None:
        """Nanoseconds, what the kernel tells busybox, or whole seconds; nonsense is none."""
        for output, expected in (
            ("1700000000.123456789\n", (1700000000.123456789, 0.0)),
            ("    status:       64\n    time.tv_sec:  1700000000\n    time.tv_usec: 250000\n\n"
             "1700000000\n", (1700000000.25, 0.0)),
            ("1700000000\n", (1700000000.0, 1.0)),
        ):
            shells = LocalShells(lambda node, text, limit, output=output: Result(0, output, ""))
            found, resolution = exchange(shells, "n1")
            self.assertEqual((found.told, resolution), expected)
        shells = LocalShells(lambda node, text, limit: Result(127, "", "date: not found"))
        self.assertIn("date: not found", str(self.assertRaises(Failure, exchange, shells, "n1")))
