"""Switches as pages follow them: rows that are made anew when something is different."""

from __future__ import annotations

import json
from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from walt.server.domain.switches.views import SwitchViews

AT_ONCE = 4  # switches, of some fifty ports each, in one turn of the reactor


class LiveSwitches:
    """The rows of the topic `topology`, by MAC; the same ones as long as nothing is different."""

    def __init__(self, views: SwitchViews, clock: IReactorTime) -> None:
        self._views = views
        self._clock = clock
        self._revision: object = None
        self._rows: dict[str, str] = {}

    async def rows(self) -> Mapping[str, str]:
        """Return the JSON of each row. Many are made in several turns."""
        revision = self._views.revision
        if revision != self._revision:
            rows: dict[str, str] = {}
            for count, row in enumerate(self._views.map(), 1):
                rows[row["mac"]] = json.dumps(row)
                if count % AT_ONCE == 0:
                    await deferLater(self._clock, 0)
            self._rows, self._revision = rows, revision
        return self._rows
