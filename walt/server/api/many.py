"""Answers of thousands of rows, made some in each turn of the reactor."""

from __future__ import annotations

import json
from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from walt.rpc.arguments import Written

AT_ONCE = 256  # rows made in one turn


async def written(rows: Iterable[object], clock: IReactorTime) -> Written:
    """Return a JSON list of rows, which are made while they are asked for."""
    texts: list[str] = []
    for count, row in enumerate(rows, 1):
        texts.append(json.dumps(row))
        if count % AT_ONCE == 0:
            await deferLater(clock, 0)
    return Written(f"[{', '.join(texts)}]".encode())
