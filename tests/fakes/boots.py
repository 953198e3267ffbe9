"""Fake of the records of boots."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from zope.interface import implementer

from walt.server.domain.nodes.boots import BOOTS_KEPT, Boot, Outcome
from walt.server.domain.nodes.interfaces import IBoots


@implementer(IBoots)
class FakeBoots:
    """Records in a list; `known` are the MACs of the devices that exist, `errors` are raised.

    Records of the MACs in `refused` are not taken, nor what is saved with them.
    """

    def __init__(self, known: Container[str]) -> None:
        self._known = known
        self._boots: dict[tuple[str, float], Boot] = {}
        self.errors: list[Exception] = []
        self.refused: set[str] = set()

    async def last_boots(
        self, macs: Sequence[str] | None, count: int, most: int | None = None
    ) -> list[Boot]:
        """Return the last boots of nodes."""
        found: list[Boot] = []
        for mac in {one for one, _ in self._boots if one in self._known}:
            if macs is None or mac in macs:
                found += self._of(mac)[-count:]
        found.sort(key=lambda boot: (boot.asked, boot.mac))
        return found if most is None else found[len(found) - min(most, len(found)):]

    async def unfinished(self) -> list[Boot]:
        """Return the last boots that are not over."""
        last = await self.last_boots(None, 1)
        return [boot for boot in last if boot.outcome is Outcome.BOOTING]

    async def save_boots(self, boots: Sequence[Boot]) -> None:
        """Insert or replace records of known devices, whose last ones are kept."""
        if self.errors:
            raise self.errors.pop(0)
        if self.refused & {boot.mac for boot in boots}:
            raise ValueError("refused")
        for boot in boots:
            if boot.mac in self._known:
                self._boots[boot.mac, boot.asked] = _copy(boot)
        for mac in {boot.mac for boot in boots}:
            for boot in self._of(mac)[:-BOOTS_KEPT]:
                del self._boots[mac, boot.asked]

    def _of(self, mac: str) -> list[Boot]:
        own = [_copy(boot) for boot in self._boots.values() if boot.mac == mac]
        return sorted(own, key=lambda boot: boot.asked)


def _copy(boot: Boot) -> Boot:
    return replace(boot, moments=dict(boot.moments))
