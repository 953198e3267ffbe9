"""Counts what a record holds: how often lines were executed, and how long they took.

Between two moments of which the time is known, each code is taken to last as long as each
other: where the event loop never waits for long, that is exact for sums, not for single lines.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from walt.server.trackexec import codes
from walt.server.trackexec.record import Record
from walt.server.trackexec.stacks import Stacks

STEP = "wf_"  # how functions begin that are the steps of workflows


@dataclass(frozen=True)
class Row:
    """A line, a function or a step: how long in seconds, and how often."""

    file: int
    line: int
    name: str
    seconds: float
    count: int

    @property
    def average(self) -> float:
        """Seconds of one execution."""
        return self.seconds / self.count if self.count else 0.0


def busy(record: Record) -> Iterator[tuple[array[int], float, bool]]:
    """Return the codes between moments, seconds of each, and whether the stack is empty before.

    Nothing is told of the time in which the event loop waited.
    """
    for entry in record.entries:
        found = record.codes(entry)
        if found is None:
            continue
        start, since, fresh = 0, entry.begin, not entry.goes_on
        for index, code in enumerate(found):
            if codes.kind(code) != codes.EARLY or index + 1 >= len(found):
                continue
            what, when = codes.time_of(code, found[index + 1])
            if index > start:
                yield found[start:index], _each(since, when, index - start), fresh
                fresh = False
            if what == codes.BUSY:
                fresh = True
            start, since = index + 2, when
        if len(found) > start:
            rest = len(found) - start
            yield found[start:], _each(since, entry.end, rest), fresh


def _each(since: int, until: int, count: int) -> float:
    return max(until - since, 0) / 1e6 / count


def by_line(record: Record) -> list[Row]:
    """Return how long each line took and how often it was executed."""
    counts: Counter[int] = Counter()
    seconds: defaultdict[int, float] = defaultdict(float)
    for found, each, _ in busy(record):
        for code, times in Counter(found).items():
            # What a function costs at its ends is that of its first line.
            if codes.kind(code) in (codes.LINE, codes.ENTER, codes.LEAVE, codes.SUSPEND):
                at = codes.place(codes.LINE, codes.file_of(code), codes.line_of(code))
                seconds[at] += each * times
                if codes.kind(code) in (codes.LINE, codes.ENTER):
                    counts[at] += times
    return [
        Row(codes.file_of(at), codes.line_of(at), "", spent, counts[at])
        for at, spent in seconds.items()
    ]


def by_function(record: Record, only_waiting: bool = False) -> list[Row]:
    """Return how long each function took itself, without those that it called.

    With `only_waiting` the coroutines and generators alone.
    """
    counts: Counter[int] = Counter()
    seconds: defaultdict[int, float] = defaultdict(float)
    for found, each, _ in busy(record):
        for code, times in Counter(found).items():
            kind = codes.kind(code)
            if kind not in (codes.LINE, codes.ENTER, codes.LEAVE, codes.SUSPEND):
                continue
            file = codes.file_of(code)
            function = record.source(file).function(codes.line_of(code))
            if only_waiting and not function.waits:
                continue
            at = codes.place(codes.LINE, file, function.line)
            seconds[at] += each * times
            if kind == codes.ENTER:
                counts[at] += times
    return [
        Row(file, line, record.source(file).function(line).name, spent, counts[at])
        for at, spent in seconds.items()
        for file, line in [(codes.file_of(at), codes.line_of(at))]
    ]


def by_step(record: Record) -> list[Row]:
    """Return how long each step of workflows took, with all that it called and awaited."""
    counts: Counter[tuple[int, int, str]] = Counter()
    seconds: defaultdict[tuple[int, int, str], float] = defaultdict(float)
    stacks = Stacks(record.source)
    for found, each, fresh in busy(record):
        if fresh:
            stacks.clear()
        for code in found:
            stacks.follow(code)
            for frame in stacks.stack:
                function = frame.function
                if function.name.rpartition(".")[2].startswith(STEP):
                    key = function.file, function.line, function.name
                    seconds[key] += each
                    if codes.kind(code) == codes.ENTER and frame is stacks.stack[-1]:
                        counts[key] += 1
                    break
    return [Row(*key, spent, counts[key]) for key, spent in seconds.items()]


SORTS = {
    "cumulated-runtime": lambda row: row.seconds,
    "average-runtime": lambda row: row.average,
    "frequency": lambda row: row.count,
}


def hottest(rows: list[Row], column: str, most: int) -> list[Row]:
    """Return the first `most` rows by a column of `SORTS`, the largest first."""
    value = SORTS[column]
    return sorted(rows, key=lambda row: (-value(row), row.file, row.line))[:most]
