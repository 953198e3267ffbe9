"""Nodes as pages follow them: rows of tables, with how far a boot has come and where a node is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from walt.server.domain.nodes.progress import BootProgress, State, state_of
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.nodes.views import NodeViews

AT_ONCE = 500  # rows compared in one turn of the reactor
Place = tuple[str, "str | None"]  # a switch and the name of a port of it


class _Seen(NamedTuple):
    brief: str
    state: State
    stage: str | None
    failure: str | None
    place: Place | None


class LiveNodes:
    """The rows of the topic `nodes`, by MAC; the same text as long as nothing is different.

    `places` returns where devices are, by MAC. Many rows are compared in several turns.
    """

    def __init__(
        self, views: NodeViews, status: BootStatus, progress: BootProgress,
        places: Callable[[], Mapping[str, Place]], clock: IReactorTime, at_once: int = AT_ONCE,
    ) -> None:
        self._views = views
        self._status = status
        self._progress = progress
        self._places = places
        self._clock = clock
        self._at_once = at_once
        self._seen: dict[str, _Seen] = {}
        self._rows: dict[str, str] = {}

    def state(self, mac: str) -> State:
        """Return the state of a node."""
        progress = self._progress
        return state_of(self._status.is_booted(mac), progress.stage(mac), progress.failure(mac))

    async def rows(self) -> dict[str, str]:
        """Return the JSON of each row."""
        brief, places = await self._views.brief(), self._places()
        for count, (mac, text) in enumerate(brief.items(), 1):
            state = self.state(mac)
            seen = _Seen(
                text, state, self._progress.stage(mac) if state == "booting" else None,
                self._progress.failure(mac) if state == "failed" else None, places.get(mac),
            )
            if self._seen.get(mac) != seen:
                self._seen[mac] = seen
                self._rows[mac] = _row(mac, seen)
            if count % self._at_once == 0:
                await deferLater(self._clock, 0, lambda: None)
        for mac in self._rows.keys() - brief.keys():
            del self._rows[mac], self._seen[mac]
        return self._rows


def _row(mac: str, seen: _Seen) -> str:
    switch, port = seen.place or (None, None)
    more: dict[str, Any] = {
        "mac": mac, "state": seen.state, "stage": seen.stage, "failure": seen.failure,
        "switch": switch, "port": port,
    }
    return f"{seen.brief[:-1]}, {json.dumps(more)[1:]}"
