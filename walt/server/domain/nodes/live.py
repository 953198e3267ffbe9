"""Nodes as pages follow them: rows of tables, with how far a boot has come and where a node is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater

from walt.server.domain.nodes.progress import state_of
from walt.server.domain.nodes.views import COLUMNS, NodeViews, Row, cells_of

AT_ONCE = 500  # rows made in one turn of the reactor
KEPT = 60.0  # seconds for which rows are kept that nobody asks for
SAME = 10  # rows that are the same, which cost as much as one that is made
Place = tuple[str, "str | None"]  # a switch and the name of a port of it


class _Seen(NamedTuple):
    row: Row
    place: Place | None


class LiveNodes:
    """The rows of the topic `nodes`, by MAC; the same text as long as nothing is different.

    `places` returns where devices are, by MAC. Rows of nodes that changed are made anew, many of
    them in several turns.
    """

    def __init__(
        self, views: NodeViews, places: Callable[[], Mapping[str, Place]], clock: IReactorTime,
        at_once: int = AT_ONCE,
    ) -> None:
        self._views = views
        self._places = places
        self._clock = clock
        self._at_once = at_once
        self._seen: dict[str, _Seen] = {}
        self._rows: dict[str, str] = {}
        self._idle: IDelayedCall | None = None

    def _keep(self) -> None:
        """Keep the rows for a while: those of thousands of nodes take megabytes."""
        if self._idle is not None and self._idle.active():
            self._idle.reset(KEPT)
        else:
            self._idle = self._clock.callLater(KEPT, self._drop)

    def _drop(self) -> None:
        self._seen, self._rows = {}, {}

    async def rows(self) -> dict[str, str]:
        """Return the JSON of each row."""
        self._keep()
        rows, places = await self._views.rows(), self._places()
        work = 0
        for mac, row in rows.items():
            seen, place = self._seen.get(mac), places.get(mac)
            work += 1
            if seen is None or seen.row is not row or seen.place != place:
                self._seen[mac] = seen = _Seen(row, place)
                self._rows[mac] = _text(mac, seen)
                work += SAME
            if work >= SAME * self._at_once:
                work = 0
                await deferLater(self._clock, 0)
        for mac in self._rows.keys() - rows.keys():
            del self._rows[mac], self._seen[mac]
        return self._rows


def _text(mac: str, seen: _Seen) -> str:
    row, known = seen.row, seen.row.state
    state = state_of(known.booted, known.stage, known.failure)
    switch, port = seen.place or (None, None)
    shown: dict[str, Any] = {
        **dict(zip(COLUMNS, cells_of(row.device, known), strict=True)),
        "mac": mac, "state": state, "stage": known.stage if state == "booting" else None,
        "failure": known.failure if state == "failed" else None, "switch": switch, "port": port,
    }
    return json.dumps(shown)
