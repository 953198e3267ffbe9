"""What people watch: a snapshot of rows, then what differs, one encoding for all viewers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from walt.server.runtime.coroutines import spawn

_log = Logger()

PACE = 0.25  # seconds between two messages of a topic
LOOK_EVERY = 2.0  # seconds between looks at what tells of no change

Rows = Mapping[str, str]  # the JSON of each row, by what it is known by


class IViewer(Interface):
    """Somebody who watches."""

    late = Attribute("whether what was sent has not left yet: nothing more is sent meanwhile")

    def send(message: bytes) -> None:
        """Send a message, as the encoding of the topic made it."""


class Topic:
    """The rows of one kind of things.

    `rows` returns them as they are now, the same texts for what did not change; it is asked after
    `changed`, at most every `PACE` seconds, and every `look_every` seconds (0: never), as long as
    somebody watches; whoever comes and goes is no reason to ask, or to be sent all rows, more
    often. `encode` makes of a text what viewers send. `clock` gives callLater.
    """

    def __init__(
        self, name: str, rows: Callable[[], Awaitable[Rows]], encode: Callable[[str], bytes],
        clock: IReactorTime, look_every: float = LOOK_EVERY,
    ) -> None:
        self.name = name
        self._ask = rows
        self._encode = encode
        self._clock = clock
        self._look_every = look_every
        self._rows: dict[str, str] | None = None
        self._snapshot: bytes | None = None
        # Those that have the rows, and what of them they have missed; None: they have none.
        self._viewers: dict[Any, set[str] | None] = {}
        self._timer: IDelayedCall | None = None
        self._asking = False
        self._again = False
        self._asked = -PACE  # when
        self._told: WeakKeyDictionary[Any, float] = WeakKeyDictionary()  # when it got all rows

    def watch(self, viewer: Any) -> None:
        """Send the rows to a viewer, and what changes from then on."""
        if viewer in self._viewers:
            return
        self._viewers[viewer] = None
        if self._rows is None or len(self._viewers) == 1:
            self._rows = None  # nobody watched: they are old
            self._snapshot = None
            early = self._asked + PACE - self._clock.seconds()
            if early > 0 and not self._asking:
                self._plan(early)
            else:
                self._refresh()
        elif self._told.get(viewer, -PACE) + PACE > self._clock.seconds():
            self.changed()  # it came again: it gets them with the next look
        else:
            self._send_all(viewer)

    def leave(self, viewer: Any) -> None:
        """The viewer does not watch any more."""
        self._viewers.pop(viewer, None)
        if not self._viewers:
            self._rows = self._snapshot = None
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._timer = None

    def drained(self, viewer: Any) -> None:
        """A late viewer has taken what it was sent: it gets what it has missed."""
        if viewer in self._viewers and self._rows is not None:
            self._catch_up(viewer)

    def _catch_up(self, viewer: Any) -> None:
        missed = self._viewers[viewer]
        assert self._rows is not None
        if missed is None or len(missed) > len(self._rows) // 2:
            self._send_all(viewer)
        elif missed and not viewer.late:
            fresh = {key: self._rows[key] for key in missed if key in self._rows}
            viewer.send(self._difference(fresh, [key for key in missed if key not in fresh]))
            missed.clear()

    def changed(self, *_: object) -> None:
        """Something is different: viewers are told soon."""
        if not self._viewers:
            return
        if self._asking:
            self._again = True
        elif self._timer is None or self._timer.getTime() - self._clock.seconds() > PACE:
            self._plan(PACE)

    def _plan(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._refresh)

    def _refresh(self) -> None:
        self._timer = None
        if self._asking:
            self._again = True
            return
        self._asking = True
        spawn(self._look(), f"looking at {self.name}")

    async def _look(self) -> None:
        self._again = False
        self._asked = self._clock.seconds()
        try:
            found = await self._ask()
            if self._viewers:
                self._tell(found)
        finally:
            self._asking = False
            if self._viewers:
                if self._again:
                    self._plan(PACE)
                elif self._look_every:
                    self._plan(self._look_every)

    def _tell(self, found: Rows) -> None:
        before, self._rows = self._rows, dict(found)
        if before is None:
            self._snapshot = None
            for viewer in self._viewers:
                self._send_all(viewer)
            return
        fresh = [(key, text) for key, text in found.items() if before.get(key) != text]
        gone = [key for key in before if key not in found]
        if fresh or gone:
            self._snapshot = None
        keys = [*(key for key, _ in fresh), *gone]
        message: bytes | None = None
        for viewer, missed in list(self._viewers.items()):
            if missed is None or missed or viewer.late:
                if missed is not None:
                    missed.update(keys)
                self._catch_up(viewer)
            elif keys:
                message = message or self._difference(dict(fresh), gone)
                viewer.send(message)

    def _difference(self, fresh: Rows, gone: list[str]) -> bytes:
        return self._encode(
            f'{{"topic": {json.dumps(self.name)}, "set": {_object(fresh)},'
            f' "gone": {json.dumps(gone)}}}'
        )

    def _send_all(self, viewer: Any) -> None:
        if viewer.late:
            self._viewers[viewer] = None
            return
        if self._snapshot is None:
            assert self._rows is not None
            self._snapshot = self._encode(
                f'{{"topic": {json.dumps(self.name)}, "rows": {_object(self._rows)}}}'
            )
        self._viewers[viewer] = set()
        self._told[viewer] = self._clock.seconds()
        viewer.send(self._snapshot)


def _object(rows: Rows) -> str:
    return "{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in rows.items()) + "}"
