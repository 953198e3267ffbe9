"""Experiments that clients run: what they tell of them, for others who want the nodes.

Nothing of what is run is told: no commands, values, outputs or reasons.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from walt.common.errors import Invalid, LimitExceeded
from walt.common.names import is_device_name
from walt.server.domain.events import Source

SILENCE = 60.0  # seconds without a word, after which a client does not speak any more
KEPT = 3600.0  # seconds for which one that ended, or whose client is silent, is shown
MOST_NODES, MOST_POINTS = 1000, 10_000
STATES = ("preparing", "running", "done", "failed", "interrupted", "released")
LAST_MOMENT = 1 << 33  # epoch seconds: of the year 2242; calendars of clients know it
_RUN = re.compile("[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Report:
    """What a client tells of a run. Raises Invalid.

    `began` is in epoch seconds; `point` of `points` is the last one that ended, 0 for none;
    `failed` are those that did not end well, `failed_point` is the last one of these, 0 for none.
    """

    run: str
    name: str
    state: str
    nodes: Collection[str]
    began: float
    point: int
    points: int
    failed: int
    failed_point: int

    def __post_init__(self) -> None:
        if not _RUN.fullmatch(self.run) or not _NAME.fullmatch(self.name):
            raise Invalid("a run has 12 hexadecimal digits, and an experiment a name of letters,"
                          " digits, ., _ and -")
        if not 0 <= self.began < LAST_MOMENT:
            raise Invalid("a run began after 1970 and before 2243")
        if self.state not in STATES:
            raise Invalid(f"a run is {', '.join(STATES)}, nothing else")
        if len(self.nodes) > MOST_NODES or not all(map(is_device_name, self.nodes)):
            raise Invalid(f"a run has the names of up to {MOST_NODES} nodes")
        numbers = self.point, self.failed, self.failed_point
        if not 0 <= self.points <= MOST_POINTS or not all(
            0 <= number <= self.points for number in numbers
        ):
            raise Invalid(f"a run has up to {MOST_POINTS} points, and no others are told")


class Limits(NamedTuple):
    """How many runs are known, in all and of a user, and how many names of nodes they have."""

    runs: int = 500
    of_user: int = 20
    names: int = 20_000


class _Heard(NamedTuple):
    report: Report
    last: float
    row: dict[str, Any]  # without what changes by itself


class RunningExperiments:
    """The runs of all users. They are in memory alone: clients tell again and again.

    `changed` is told when something is different. `clock` gives epoch seconds; `is_node` tells
    whether a name is that of a node: others are not shown.
    """

    def __init__(
        self, clock: IReactorTime, is_node: Callable[[str], bool], limits: Limits | None = None
    ) -> None:
        self._limits = limits or Limits()
        self.changed: Source[[]] = Source()
        self._clock = clock
        self._is_node = is_node
        self._known: dict[tuple[str, str], _Heard] = {}  # by user and run

    def report(self, user: str, report: Report) -> None:
        """Note what a client tells. Raises LimitExceeded."""
        self._forget()
        key, now = (user, report.run), self._clock.seconds()
        known = self._known.pop(key, None)
        if known is not None and known.report == report:
            self._known[key] = known._replace(last=now)
            return
        nodes = sorted({name for name in report.nodes if self._is_node(name)})
        self._make_room(user, len(nodes), known is None)
        started = min(report.began, now) if known is None else known.row["started"]
        row = {"user": user, **asdict(report), "nodes": nodes, "started": started}
        del row["began"]
        self._known[key] = _Heard(report, now, row)
        self.changed.tell()

    def _forget(self) -> None:
        now = self._clock.seconds()
        for key in [key for key, heard in self._known.items() if now - heard.last > KEPT]:
            del self._known[key]

    def _make_room(self, user: str, names: int, new: bool) -> None:
        """Forget the oldest ones that are over; raise LimitExceeded where all go on."""
        own, limits = [key for key in self._known if key[0] == user], self._limits
        bounds = ((own, limits.of_user), (list(self._known), limits.runs))
        for keys, most in bounds if new else ():
            if len(keys) < most:
                continue
            over = [key for key in keys if not self._is_active(self._known[key])]
            if not over:
                raise LimitExceeded(f"{most} experiments run already: no more are shown")
            self._known.pop(over[0], None)
        total = names + sum(len(heard.row["nodes"]) for heard in self._known.values())
        for key in [key for key, heard in self._known.items() if not self._is_active(heard)]:
            if total > limits.names:
                total -= len(self._known.pop(key).row["nodes"])
        if total > limits.names:
            raise LimitExceeded(
                f"experiments run on {limits.names} nodes already: no more are shown"
            )

    def _is_active(self, heard: _Heard) -> bool:
        return heard.report.state in STATES[:2] and self._clock.seconds() - heard.last < SILENCE

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run, those that go on first."""
        self._forget()
        now = self._clock.seconds()
        found = [
            {
                **heard.row, "last_seen": heard.last, "online": now - heard.last < SILENCE,
                "active": self._is_active(heard),
            } for heard in self._known.values()
        ]
        return sorted(found, key=lambda row: (not row["active"], -row["started"]))
