"""Walks through a record: steps, breakpoints, jumps to a time."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from walt.server.trackexec import codes
from walt.server.trackexec.record import Entry, Record
from walt.server.trackexec.sources import Source
from walt.server.trackexec.stacks import Frame, Stacks

LOOK_BACK = 64  # blocks that are followed before the one of a jump: their stacks lead to it


@dataclass(frozen=True)
class Place:
    """A line of a file; with `function`, the beginning of this function."""

    file: int
    line: int
    function: bool = False

    @property
    def code(self) -> int:
        """The code with which it is recorded."""
        return codes.place(codes.ENTER if self.function else codes.LINE, self.file, self.line)


class Replay:
    """A position in a record, which moves forward by itself and backward by jumps.

    It is at a line that is about to be executed, at the start, or at the end of what was written.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._stacks = Stacks(record.source)
        self._block = 0
        self._codes: array[int] = array("I")
        self._next = 0  # the code that is followed next
        # What is known of time: the moment before the position, and the one after it.
        self._before = (0, 0)  # index of code, microseconds
        self._moments: list[tuple[int, int]] = []
        self.breakpoints: set[Place] = set()
        self.at_end = False
        self.gaps = 0
        self._begin(0)

    # -- where it is -------------------------------------------------------------

    @property
    def stack(self) -> list[Frame]:
        """Who called: the frames of the present coroutine or call, outermost first."""
        return self._stacks.stack

    @property
    def source(self) -> Source | None:
        """The file of the position."""
        return self._record.source(self.stack[-1].function.file) if self.stack else None

    @property
    def line(self) -> int:
        """The line of the position; 0 when there is none."""
        return self.stack[-1].line if self.stack else 0

    @property
    def time(self) -> int:
        """About when, in microseconds since 1970: between moments it is interpolated."""
        if not self._record.entries:
            return 0
        entry = self._record.entries[min(self._block, len(self._record.entries) - 1)]
        before, after = (0, entry.begin), (max(len(self._codes), 1), entry.end)
        for moment in self._moments:
            if moment[0] <= self._next:
                before = moment
            else:
                after = moment
                break
        share = (self._next - before[0]) / max(after[0] - before[0], 1)
        return before[1] + round(max(after[1] - before[1], 0) * min(share, 1.0))

    # -- moves -----------------------------------------------------------------

    def step(self) -> None:
        """Go to the next line that was executed, of whatever function."""
        for code in self._forward():
            if codes.kind(code) == codes.LINE:
                return

    def next(self) -> None:
        """Go to the next line of this function, or of who called it; calls are passed over.

        While a coroutine waits, what others do meanwhile is passed over as well.
        """
        if not self.stack:
            self.step()
            return
        *callers, mine = self.stack
        for code in self._forward():
            kind = codes.kind(code)
            while kind == codes.LEAVE and not mine.waiting and mine not in self.stack:
                if not callers:
                    self.step()
                    return
                mine = callers.pop()
            if kind == codes.LINE and self.stack[-1] is mine:
                return

    def go_on(self) -> None:
        """Go to the next breakpoint, or to the end."""
        wanted = {stop.code for stop in self.breakpoints}
        functions = {stop.code for stop in self.breakpoints if stop.function}
        self._skip(wanted)
        for code in self._forward():
            if code in functions:
                self.step()
                return
            if code in wanted:
                return

    def find(self, places: set[int]) -> bool:
        """Go to the next of some codes of lines; tell whether there was one."""
        self._skip(places)
        return any(code in places for code in self._forward())

    def jump(self, microseconds: int) -> None:
        """Go to the last line before a time; to the start when there is none."""
        self._record.refresh()
        first = self._first(self._record.at(microseconds))
        self._begin(first)
        last: tuple[int, int] | None = None
        for code in self._forward():
            if codes.kind(code) == codes.LINE:
                if self.time > microseconds:
                    break
                last = self._block, self._next
        self._begin(first)
        if last is None:
            return
        for _ in self._forward():
            if (self._block, self._next) >= last:
                break

    # -- codes -----------------------------------------------------------------

    def _begin(self, block: int) -> None:
        self._stacks = Stacks(self._record.source)
        self._block, self._next = block, 0
        self._codes, self._moments = array("I"), []
        self.at_end = False
        if block < len(self._record.entries):
            self._load(self._record.entries[block])

    def _load(self, entry: Entry) -> None:
        found = self._record.codes(entry)
        self._next = 0
        if found is None or entry.after_gap:
            self.gaps += 1
        self._codes = array("I") if found is None else found
        self._moments = moments(self._codes)
        if not entry.goes_on or found is None:
            self._stacks.clear()

    def _skip(self, wanted: set[int]) -> None:
        """Leave out what lies far before the next of some codes."""
        if not wanted.isdisjoint(self._codes[self._next:]):
            return
        self._record.refresh()
        entries = self._record.entries
        for number in range(self._block + 1, len(entries)):
            found = self._record.codes(entries[number])
            if found is not None and not wanted.isdisjoint(found):
                break
        else:
            number = len(entries) - 1
        first = self._first(number)
        if first > self._block:
            self._begin(first)

    def _first(self, number: int) -> int:
        """Return the block to start with, so that stacks are known in another one."""
        first = max(0, number - LOOK_BACK)
        while first > 0 and self._record.entries[first].goes_on:
            first -= 1
        return first

    def _forward(self) -> Iterator[int]:
        """Follow code after code, up to the end of what was written."""
        while True:
            while self._next < len(self._codes):
                code = self._codes[self._next]
                self._next += 1
                if codes.kind(code) == codes.EARLY:
                    if codes.what_of(code) == codes.IDLE:
                        self._stacks.clear()
                    continue
                self._stacks.follow(code)
                yield code
            entries = self._record.entries
            if self._block + 1 >= len(entries) and not self._record.refresh():
                self.at_end = True
                return
            if self._block + 1 < len(entries):
                self._block += 1
                self._load(entries[self._block])


def moments(found: array[int]) -> list[tuple[int, int]]:
    """Return the moments among codes: index, microseconds since 1970."""
    times = []
    for index, code in enumerate(found):
        if codes.kind(code) == codes.EARLY and index + 1 < len(found):
            times.append((index, codes.time_of(code, found[index + 1])[1]))
    return times
