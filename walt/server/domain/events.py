"""What happened, told to whoever wants to know: the one idiom for events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Source(Generic[P]):
    """Something that happens; its owner tells it, others observe it.

    Who builds objects joins them by `observe`, so that neither side knows the other.
    """

    def __init__(self) -> None:
        self._observers: list[Callable[P, object]] = []

    def observe(self, observer: Callable[P, object]) -> None:
        """Call `observer` each time, after those that were there before."""
        self._observers.append(observer)

    def tell(self, *values: P.args, **named: P.kwargs) -> None:
        """It happened."""
        for observer in self._observers:
            observer(*values, **named)
