"""The connections of TCP listeners: how many, from whom, and ending those of one holder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple


class Kind(Enum):
    """Who has an address: a known node, something else of walt-net, or somebody elsewhere."""

    NODE = "node"
    NEIGHBOUR = "neighbour"
    ELSEWHERE = "elsewhere"


class Share(NamedTuple):
    """How many connections one address of a kind may have, and all of them together."""

    each: int
    together: int


class Limits(NamedTuple):
    """How many connections there may be; see docs/limits.md."""

    together: int
    shares: Mapping[Kind, Share]


# A node keeps one connection for its state, and one for each log stream. It always finds a
# place: whoever is no known node has a part alone.
DOORS = Limits(12_000, {
    Kind.NODE: Share(2_500, 12_000), Kind.NEIGHBOUR: Share(100, 1_000),
    Kind.ELSEWHERE: Share(500, 9_000),
})
WEB = Limits(2_000, {
    Kind.NODE: Share(200, 2_000), Kind.NEIGHBOUR: Share(50, 300), Kind.ELSEWHERE: Share(200, 1_000),
})
# The fuller it is, the fewer connections may an address have: a part of what is left, but these.
PART, ALWAYS = 4, 20


class Connections:
    """Counts the connections of some listeners, by the address they come from.

    `kind` tells who has an address.
    """

    def __init__(self, limits: Limits, kind: Callable[[str], Kind]) -> None:
        self._limits = limits
        self._kind = kind
        self._count: Counter[str] = Counter()
        self._kinds: dict[str, Kind] = {}  # of addresses that have connections
        self._of_kind: Counter[Kind] = Counter()
        self._holders: dict[str, set[Any]] = {}
        self.open = 0
        self.refused = 0

    def admit(self, address: str | None) -> bool:
        """Count one more, from an address or a unix socket (None).

        False when there are too many: it must be closed at once, and is not counted. Those
        who may use the unix sockets always come in: no crowd of strangers keeps them out.
        """
        if address is not None:
            kind = self._kinds.get(address) or self._kind(address)
            if not self._has_place(address, kind):
                self.refused += 1
                return False
            self._kinds[address] = kind
            self._count[address] += 1
            self._of_kind[kind] += 1
        self.open += 1
        return True

    def _has_place(self, address: str, kind: Kind) -> bool:
        left, share = self._limits.together - self.open, self._limits.shares[kind]
        if left <= 0 or self._of_kind[kind] >= share.together:
            return False
        return self._count[address] < min(share.each, max(ALWAYS, left // PART))

    def release(self, address: str | None) -> None:
        """Count one less."""
        self.open -= 1
        if address is not None:
            self._of_kind[self._kinds[address]] -= 1
            self._count[address] -= 1
            if self._count[address] <= 0:
                del self._count[address], self._kinds[address]

    def hold(self, serial: str | None, connection: Any) -> None:
        """Remember that a connection (with `abortConnection`) was opened with a certificate."""
        if serial is not None:
            self._holders.setdefault(serial, set()).add(connection)

    def let_go(self, serial: str | None, connection: Any) -> None:
        """The connection is gone."""
        if serial is not None:
            holders = self._holders.get(serial, set())
            holders.discard(connection)
            if not holders:
                self._holders.pop(serial, None)

    def end(self, serial: str) -> None:
        """Close every connection opened with a certificate."""
        for connection in list(self._holders.get(serial, ())):
            connection.abortConnection()
