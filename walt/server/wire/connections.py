"""The connections of TCP listeners: how many, from whom, and ending those of one holder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """How many connections there may be; see docs/limits.md."""

    together: int
    of_node: int  # from one address of walt-net
    of_other: int  # from one address elsewhere
    of_others: int  # from all addresses elsewhere: nodes always have the rest


# A node keeps one connection for its state, and one for each log stream.
DOORS = Limits(12_000, 2_500, 500, 10_000)
WEB = Limits(2_000, 200, 200, 2_000)


class Connections:
    """Counts the connections of some listeners, by the address they come from."""

    def __init__(self, limits: Limits = DOORS) -> None:
        self._limits = limits
        self._count: Counter[str] = Counter()
        self._holders: dict[str, set[Any]] = {}
        self._outside: set[str] = set()  # addresses elsewhere
        self._others = 0  # connections from there
        self.open = 0
        self.refused = 0

    def admit(self, address: str | None, *, inside: bool) -> bool:
        """Count one more, from an address (`inside`: of walt-net) or a unix socket (None).

        False when there are too many: it must be closed at once, and is not counted. Those
        who may use the unix sockets always come in: no crowd of strangers keeps them out.
        """
        if address is not None and not self._has_place(address, inside):
            self.refused += 1
            return False
        self.open += 1
        if address is not None:
            self._count[address] += 1
            if not inside:
                self._outside.add(address)
                self._others += 1
        return True

    def _has_place(self, address: str, inside: bool) -> bool:
        limits = self._limits
        if self.open >= limits.together:
            return False
        if inside:
            return self._count[address] < limits.of_node
        return self._count[address] < limits.of_other and self._others < limits.of_others

    def release(self, address: str | None) -> None:
        """Count one less."""
        self.open -= 1
        if address is not None:
            self._count[address] -= 1
            self._others -= address in self._outside
            if self._count[address] <= 0:
                del self._count[address]
                self._outside.discard(address)

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
