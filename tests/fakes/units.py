"""Units of systemd in memory."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from walt.common.errors import CommandFailed, Unavailable
from walt.server.runtime.units import IUnits, UnitState, Unseen


@implementer(IUnits)
class FakeUnits:
    """Carries out orders at once, unless they are `held`; `orders` are those it got.

    `broken` are units that end as soon as they are started, with their status; `away`: nobody
    gets orders; `busy`: they are carried out, and `tell` says so later.
    """

    def __init__(self) -> None:
        self.orders: list[tuple[str, str]] = []
        self.states: dict[str, UnitState] = {}
        self.broken: dict[str, int] = {}
        self.missing: set[str] = set()
        self.deaf: set[str] = set()  # units that cannot be reloaded
        self.away = self.busy = False
        self.held: list[Deferred[None]] | None = None
        self._watching: dict[
            str, tuple[Callable[[UnitState], None], Callable[[str], None]]
        ] = {}
        self._pids = 100

    def watch(
        self, unit: str, on_state: Callable[[UnitState], None], on_line: Callable[[str], None]
    ) -> None:
        """See IUnits."""
        self._watching[unit] = on_state, on_line

    def restart(self, unit: str) -> Deferred[UnitState]:
        """See IUnits."""
        return self._order("restart", unit)

    def reload(self, unit: str) -> Deferred[UnitState]:
        """See IUnits."""
        return self._order("reload", unit)

    def stop(self, unit: str) -> Deferred[UnitState]:
        """See IUnits."""
        return self._order("stop", unit)

    def _order(self, what: str, unit: str) -> Deferred[UnitState]:
        if unit not in self._watching:
            return fail(ValueError(f"{unit} is no unit of ours"))
        self.orders.append((what, unit))
        if unit in self.missing:
            return fail(Unavailable(f"there is no {unit}; run: walt-server-setup"))
        if self.away:
            return fail(Unavailable("systemd cannot be asked"))
        if self.busy:
            self._carry_out(what, unit)
            return fail(Unseen("systemd has an order and has not told how it went"))
        if what == "reload" and unit in self.deaf:
            return fail(CommandFailed(f"systemd did not do ReloadOrRestartUnit of {unit}"))
        if self.held is None:
            return succeed(self._carry_out(what, unit))
        waiting: Deferred[None] = Deferred()
        self.held.append(waiting)
        return waiting.addCallback(lambda _: self._carry_out(what, unit))

    def _carry_out(self, what: str, unit: str) -> UnitState:
        former = self.states.get(unit, UnitState("inactive"))
        if what == "stop":
            state = UnitState("inactive")
        elif what == "reload" and former.active == "active":
            state = former
        elif unit in self.broken:
            state = UnitState("failed", None, self.broken[unit], "exit-code")
        else:
            self._pids += 1
            state = UnitState("active", self._pids)
        self.states[unit] = state
        return state

    def end(self, unit: str, status: int, result: str = "signal") -> None:
        """Let its process end."""
        self.states[unit] = UnitState("failed", None, status, result)
        self.tell(unit)

    def tell(self, unit: str) -> None:
        """Tell its state."""
        self._watching[unit][0](self.states[unit])

    def write(self, unit: str, line: str) -> None:
        """Let its process write a line."""
        self._watching[unit][1](line)
