"""Switches as pages follow them: rows that are made anew when something is different."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import starmap

from twisted.internet.interfaces import IReactorTime

from walt.server.domain.switches.views import SwitchViews
from walt.server.runtime.slicing import worked_off

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
            texts = ((row["mac"], json.dumps(row)) for row in self._views.map())
            await worked_off(self._clock, starmap(rows.__setitem__, texts), AT_ONCE)
            self._rows, self._revision = rows, revision
        return self._rows
