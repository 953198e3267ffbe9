"""Nodes that scripts of users take for a while (docs/limits.md)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from walt.common.errors import Conflict, Invalid, NotFound
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.sets import Ownership
from walt.server.runtime.slicing import slices

LONGEST = 7 * 86400.0  # seconds
SILENCE = 60.0  # seconds without a word of the holder, after which its nodes are free
MOST = 1000  # nodes of one reservation
LOOKED_AT_ONCE = 1024  # devices in one turn of the reactor


class Reservation(NamedTuple):
    """One node of a reservation: `until` and `heard` (the last word) are epoch seconds."""

    user: str
    holder: str
    until: float
    heard: float


class Reservations:
    """Who has reserved which node. Nothing is forbidden by it: other people are warned.

    They are in memory alone: a holder tells again and again that it is there, after a restart
    of the server, too. `clock` gives epoch seconds; `at_once` devices are looked at in one turn
    of the reactor.
    """

    def __init__(self, clock: IReactorTime, *, at_once: int = LOOKED_AT_ONCE) -> None:
        self._clock, self._at_once = clock, at_once
        self._taken: dict[str, Reservation] = {}  # by MAC

    def get(self, mac: str) -> Reservation | None:
        """Return the reservation of a node, None if there is none."""
        found = self._taken.get(mac)
        now = self._clock.seconds()
        if found is not None and (now >= found.until or now - found.heard >= SILENCE):
            del self._taken[mac]
            return None
        return found

    def macs(self) -> Collection[str]:
        """Return the MACs of nodes that were reserved; `get` tells whether they still are."""
        return self._taken.keys()

    async def whose(
        self, devices: Sequence[Device], user: str
    ) -> tuple[Ownership, list[dict[str, Any]]]:
        """Split devices by their owners, as a user sees them.

        Return as well rows of those that another user has reserved: which, who, until when. Of
        thousands, some are looked at in each turn of the reactor.
        """
        found, reserved = Ownership(), list[dict[str, Any]]()
        async for some in slices(self._clock, devices, self._at_once):
            found.add(some, user)
            for device in some:
                held = self.get(device.mac)
                if held is not None and held.user != user:
                    reserved.append(
                        {"node": device.name, "user": held.user, "until": held.until}
                    )
        return found, reserved

    def take(
        self, nodes: Iterable[Device], model: str, count: int, seconds: float, *, user: str,
        holder: str,
    ) -> list[Device]:
        """Reserve some of these nodes for `seconds`; return them.

        `model` is a pattern as of fnmatch(3). Nodes of other users, and those that are
        reserved by another holder, are not taken. The same holder gets what it has, and more
        if it wants more. Raises Invalid, NotFound (there are never so many nodes of this
        model) or Conflict (not now).
        """
        if not 0 < count <= MOST:
            raise Invalid(f"between 1 and {MOST} nodes can be reserved at once")
        if not 0 < seconds <= LONGEST:
            raise Invalid(f"nodes can be reserved for {LONGEST / 86400:g} days at most")
        fitting = [node for node in nodes if fnmatchcase(node.model or "", model)]
        if len(fitting) < count:
            raise NotFound(
                f"{count} nodes of model {model[:80]} are wanted, and there are {len(fitting)}"
            )
        own = [node for node in fitting if self._held_by(node, user, holder)]
        open_to_all = [
            node for node in fitting
            if self.get(node.mac) is None and (node.is_free or node.owner == user)
        ]
        # Those of the user first: nobody else waits for them.
        open_to_all.sort(key=lambda node: node.owner != user)
        chosen = [*own, *open_to_all][:max(count, len(own))]
        if len(chosen) < count:
            raise Conflict(
                f"{count} nodes of model {model[:80]} are wanted, and {len(chosen)} can be had"
                f" now: {self._obstacles(fitting, chosen)}"
            )
        now = self._clock.seconds()
        for node in chosen:
            known = self._taken.get(node.mac)
            until = known.until if known is not None else now + seconds
            self._taken[node.mac] = Reservation(user, holder, until, now)
        return chosen

    def _held_by(self, node: Device, user: str, holder: str) -> bool:
        found = self.get(node.mac)
        return found is not None and (found.user, found.holder) == (user, holder)

    def _obstacles(self, fitting: Iterable[Device], chosen: Iterable[Device]) -> str:
        taken = {node.mac for node in chosen}
        others = [node for node in fitting if node.mac not in taken]
        told = []
        for node in others[:10]:
            found = self.get(node.mac)
            told.append(
                f"{node.name} is reserved by {found.user}" if found is not None
                else f"{node.name} belongs to {node.owner}"
            )
        return ", ".join(told) + (f" and {len(others) - 10} more" if len(others) > 10 else "")

    def heard(self, user: str, holder: str) -> None:
        """A holder is still there. Raises NotFound when it has no node (any more)."""
        held = self._of(user, holder)
        if not held:
            raise NotFound("these nodes are not reserved any more")
        now = self._clock.seconds()
        for mac in held:
            self._taken[mac] = self._taken[mac]._replace(heard=now)

    def free(self, user: str, holder: str) -> None:
        """A holder needs its nodes no more."""
        for mac in self._of(user, holder):
            del self._taken[mac]

    def _of(self, user: str, holder: str) -> list[str]:
        return [
            mac for mac in list(self._taken)
            if (held := self.get(mac)) is not None and (held.user, held.holder) == (user, holder)
        ]

    def forget(self, mac: str) -> None:
        """A node was removed."""
        self._taken.pop(mac, None)
