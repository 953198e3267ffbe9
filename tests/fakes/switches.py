"""Switches whose tables are in memory; verified by tests.contracts.test_switches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from zope.interface import implementer

from walt.common.errors import Unavailable
from walt.server.domain.switches.interfaces import ISwitches, SnmpTarget
from walt.server.domain.switches.survey import Survey, survey
from walt.server.domain.switches.tables import Answers, Oid, Value

SILENT = "no answer"


@implementer(ISwitches)
class FakeSwitches:
    """`tables` has the rows of each target that answers; `writable` the objects that can be set."""

    def __init__(self) -> None:
        self.tables: dict[SnmpTarget, dict[Oid, Value]] = {}
        self.writable: set[Oid] = set()
        self.asked: list[SnmpTarget] = []

    async def read(
        self, targets: Sequence[SnmpTarget], known: Collection[str] = (),
        on_read: Callable[[int, Survey], None] | None = None,
    ) -> list[Survey]:
        """Return what the rules say of the tables."""
        found = []
        for place, target in enumerate(targets):
            self.asked.append(target)
            rows = self._rows(target)
            failure = None if rows is not None else SILENT
            found.append(survey(Answers(rows or {}), known, failure))
            if on_read is not None:
                on_read(place, found[place])
        return found

    async def set(self, target: SnmpTarget, control: Oid, value: int) -> int | None:
        """Set what is writable."""
        rows = self._rows(target)
        if rows is None or control not in self.writable:
            raise Unavailable("the switch did not answer, or does not allow it")
        rows[control] = value
        return value

    def _rows(self, target: SnmpTarget) -> dict[Oid, Value] | None:
        return next((
            rows for one, rows in self.tables.items()
            if replace(one, version=target.version) == target
        ), None)
