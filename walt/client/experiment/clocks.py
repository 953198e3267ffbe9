"""Clocks of nodes beside the server's: offsets with their errors, steps, and aligned stamps.

Pure: what nodes answered comes as values, seconds of epoch or between clocks.

A sample tells the offset of a node's clock at a moment of the server's, and how wrong it may be.
Between samples clocks drift by at most `DRIFT`; what differs more than that was a step, of a moment
that nobody knows: stamps of that time have an error that covers both sides.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TypeVar

    T = TypeVar("T")

DRIFT = 1e-4  # seconds a second: what crystals keep, with some margin
EXCHANGES = 5  # for each sample


@dataclass(frozen=True)
class Exchange:
    """A question to another clock: when it was sent, what was told, when the answer came."""

    sent: float
    told: float
    received: float


@dataclass(frozen=True)
class Sample:
    """At `moment` the clock was `offset` ahead of the reference, give or take `error`."""

    moment: float
    offset: float
    error: float


@dataclass(frozen=True)
class Step:
    """Between two moments the clock was set: it was `seconds` further afterwards."""

    after: float
    before: float
    seconds: float


def best(exchanges: Iterable[Exchange], resolution: float = 0.0) -> Sample:
    """Return what the exchange with the least round trip says.

    The clock was read somewhere between question and answer. `resolution` is that of its answers,
    which are cut. Raises ValueError without any exchange.
    """
    found = min(exchanges, key=lambda exchange: exchange.received - exchange.sent)
    half = (found.received - found.sent) / 2
    return Sample(
        found.sent + half, found.told + resolution / 2 - (found.sent + half),
        half + resolution / 2,
    )


def relative(sample: Sample, reference: Sample) -> Sample:
    """Return a sample beside a reference clock, both having been taken beside a third one.

    The two were taken at nearly the same time; what they drifted meanwhile is added to the error.
    """
    apart = abs(sample.moment - reference.moment)
    return Sample(
        sample.moment + reference.offset, sample.offset - reference.offset,
        sample.error + reference.error + DRIFT * apart,
    )


class Clock:
    """What is known of a clock by its samples, of which there is at least one."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = sorted(samples, key=lambda sample: sample.moment)
        if not self._samples:
            raise ValueError("a clock without samples")
        # Between steps, what it showed is in order.
        self._pieces: list[list[Sample]] = [[self._samples[0]]]
        for before, after in _pairs(self._samples):
            if _is_step(before, after):
                self._pieces.append([])
            self._pieces[-1].append(after)
        self._readings = [
            [sample.moment + sample.offset for sample in piece] for piece in self._pieces
        ]

    def worst(self) -> Sample:
        """Return the sample that is farthest from the reference."""
        return max(self._samples, key=lambda sample: abs(sample.offset))

    def behind(self) -> float:
        """Return by how many seconds it was behind the reference at most, 0 for not at all."""
        return max(0.0, *(sample.error - sample.offset for sample in self._samples), 0.0)

    def steps(self) -> list[Step]:
        """Return where it was set."""
        return [
            Step(before.moment, after.moment, after.offset - before.offset)
            for before, after in self._set()
        ]

    def _set(self) -> Iterable[tuple[Sample, Sample]]:
        """Return the pairs of samples between which it was set."""
        return ((piece[-1], then[0]) for piece, then in _pairs(self._pieces))

    def aligned(self, stamp: float) -> tuple[float, float]:
        """Return when the reference clock showed what this one showed as `stamp`, and the error."""
        found = list(self._possible(stamp))
        if not found:  # a moment that the clock left out: next to what it showed
            near = min(self._samples, key=lambda sample: abs(sample.moment + sample.offset - stamp))
            found = [_from(near, stamp)]
        low = min(moment - error for moment, error in found)
        high = max(moment + error for moment, error in found)
        return (low + high) / 2, (high - low) / 2

    def _possible(self, stamp: float) -> Iterator[tuple[float, float]]:
        """Yield each moment at which the clock may have shown a stamp, with its error."""
        samples = self._samples
        if stamp <= self._readings[0][0]:
            yield _from(samples[0], stamp)
        if stamp >= self._readings[-1][-1]:
            yield _from(samples[-1], stamp)
        for before, after in self._set():
            for side in (before, after):
                moment, error = _from(side, stamp)
                if before.moment - error <= moment <= after.moment + error:
                    yield moment, error
        for piece, readings in zip(self._pieces, self._readings):
            at = bisect_left(readings, stamp)
            for before, after in _pairs(piece[max(0, at - 1):at + 2]):
                within = _between(before, after, stamp)
                if within is not None:
                    yield within


def _pairs(values: list[T]) -> Iterable[tuple[T, T]]:
    return zip(values, values[1:])  # noqa: RUF007 (Python 3.9 has no pairwise)


def _is_step(before: Sample, after: Sample) -> bool:
    allowed = before.error + after.error + DRIFT * (after.moment - before.moment)
    return abs(after.offset - before.offset) > allowed


def _from(sample: Sample, stamp: float) -> tuple[float, float]:
    moment = stamp - sample.offset
    return moment, sample.error + DRIFT * abs(moment - sample.moment)


def _between(before: Sample, after: Sample, stamp: float) -> tuple[float, float] | None:
    """Return the moment of a stamp on the line between two samples, None outside.

    A clock whose drift changes leaves the line by no more than the triangle of the largest drift.
    """
    begin, end = before.moment + before.offset, after.moment + after.offset
    if not begin <= stamp <= end:
        return None
    share = (stamp - begin) / (end - begin) if end > begin else 0.0
    lasts = after.moment - before.moment
    return (
        before.moment + share * lasts,
        before.error + share * (after.error - before.error)
        + 2 * DRIFT * share * (1 - share) * lasts,
    )


def samples_of(rows: Sequence[Sequence[float]]) -> list[Sample]:
    """Return the samples of rows: moment, offset, error."""
    return [Sample(*row) for row in rows]
