"""Whose lines these are: the stacks of functions behind a sequence of codes.

Coroutines take turns: what one of them executes is told together with who called it, not with
what happened to run before. A record says when a coroutine is about to wait, not whether it
does: it is taken to go on in what it calls when this begins next, and to wait otherwise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from walt.server.trackexec import codes
from walt.server.trackexec.sources import Function, Source

WAITING = 100_000  # chains of frames that wait, at most: what was never resumed is forgotten


class Frame:
    """One invocation of a function."""

    __slots__ = ("function", "line", "number", "waiting")

    def __init__(self, function: Function, line: int) -> None:
        self.function = function
        self.line = line
        self.number: int | None = None
        self.waiting = False


class Stacks:
    """Follows codes one by one; `stack` is that of the present one, outermost first."""

    def __init__(self, source: Callable[[int], Source]) -> None:
        self._source = source
        self.stack: list[Frame] = []
        self._unknown = False  # whether something goes on that began before the record
        self._chains: OrderedDict[int, list[Frame]] = OrderedDict()

    def clear(self) -> None:
        """The event loop waits: nothing runs, and what was left unfinished waits."""
        while self.stack:
            self._put_aside()

    def follow(self, code: int) -> None:
        """Take the next code; moments are ignored."""
        kind = codes.kind(code)
        if kind == codes.RESUME:
            self._resume(codes.number_of(code))
            return
        if kind not in (codes.LINE, codes.ENTER, codes.LEAVE, codes.SUSPEND):
            return
        line = codes.line_of(code)
        source = self._source(codes.file_of(code))
        function = source.function(line)
        if kind == codes.ENTER:
            self._enter(function)
            return
        if kind == codes.LINE and not (self.stack and self.stack[-1].function is function):
            function = source.defining(line) or function
        frame = self._current(function)
        frame.waiting = kind == codes.SUSPEND
        if kind == codes.LEAVE:
            self.stack.pop()
        else:
            frame.line = line

    def _enter(self, function: Function) -> None:
        if self.stack and self.stack[-1].waiting:
            top = self.stack[-1]
            awaited = self._source(top.function.file).awaited(top.line)
            name = function.name.rpartition(".")[2]
            if name != "__await__" and name not in awaited:
                self._put_aside()
        self.stack.append(Frame(function, function.line))

    def _current(self, function: Function) -> Frame:
        """Return the topmost frame of a function; those above it wait or have ended."""
        depth = len(self.stack)
        while depth and self.stack[depth - 1].function is not function:
            depth -= 1
        if not depth:  # it began before the record
            if not self._unknown:
                self.clear()
            self._unknown = False
            self.stack.append(Frame(function, function.line))
            return self.stack[-1]
        while len(self.stack) > depth:
            self._put_aside(depth)
        return self.stack[-1]

    def _put_aside(self, keep: int = 0) -> None:
        """Take the topmost frame away; with those that wait for it, when it waits itself."""
        start = len(self.stack)
        while start > keep and self.stack[start - 1].waiting:
            start -= 1
        if start == len(self.stack):
            self.stack.pop()
            return
        chain = self.stack[start:]
        del self.stack[start:]
        for frame in chain:
            if frame.number is not None:
                self._chains[frame.number] = chain
        while len(self._chains) > WAITING:
            self._chains.popitem(last=False)

    def _resume(self, number: int) -> None:
        top = self.stack[-1] if self.stack else None
        if top is not None and top.number is None and top.function.waits and not top.waiting:
            top.number = number  # it has just begun
            return
        depth = len(self.stack)
        while depth and self.stack[depth - 1].number != number:
            depth -= 1
        if depth:
            while len(self.stack) > depth:
                self._put_aside(depth)
            self.stack[-1].waiting = False
            return
        if top is not None and top.waiting:
            self._put_aside()
        chain = self._chains.pop(number, None)
        if chain is None:
            self._unknown = True  # its next line tells which function it is
            return
        index = next(at for at, frame in enumerate(chain) if frame.number == number)
        for frame in chain:
            if frame.number is not None:
                self._chains.pop(frame.number, None)
        self.stack += chain[: index + 1]
        self.stack[-1].waiting = False
