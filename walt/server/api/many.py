"""Answers of thousands of rows, made some in each turn of the reactor."""

from __future__ import annotations

import json
from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime

from walt.rpc.arguments import Written
from walt.server.runtime.slicing import worked_off

AT_ONCE = 256  # rows made in one turn


async def written(rows: Iterable[object], clock: IReactorTime) -> Written:
    """Return a JSON list of rows, which are made while they are asked for."""
    texts: list[str] = []
    await worked_off(clock, map(texts.append, map(json.dumps, rows)), AT_ONCE)
    return Written(f"[{', '.join(texts)}]".encode())
