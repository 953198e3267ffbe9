"""Bytes from one child process to another, which the server itself never sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList

T = TypeVar("T")


class Broken(Exception):
    """One end of a pipe failed, or both; `errors` has that of the source first."""

    def __init__(self, *errors: BaseException) -> None:
        super().__init__(", ".join(map(str, errors)))
        self.errors = errors


async def poured(
    source: Callable[[int], Coroutine[Any, Any, object]],
    sink: Callable[[int], Coroutine[Any, Any, T]],
) -> T:
    """Return what `sink` returns, which gets a descriptor of what `source` writes to another.

    Both are valid during the call alone: who needs one longer duplicates it, or gives it to a
    child at once. Raises Broken when both are done, if one failed.
    """
    reading, writing = os.pipe()
    try:
        sending = Deferred.fromCoroutine(source(writing))
        receiving = Deferred.fromCoroutine(sink(reading))
    finally:
        os.close(reading)
        os.close(writing)
    outcomes: list[tuple[bool, Any]] = await DeferredList(
        [sending, receiving], consumeErrors=True
    )
    errors = [result.value for ok, result in outcomes if not ok]
    if errors:
        raise Broken(*errors)
    received: T = outcomes[1][1]
    return received
