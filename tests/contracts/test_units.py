"""What every IUnits does: the fake, and systemd's D-Bus interface."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.units import FakeUnits
from tests.patience import patient
from tests.server.adapters.systemd.stand_in import Bus, Systemd, until
from walt.common.errors import Unavailable
from walt.server.adapters.systemd.units import SystemdUnits
from walt.server.runtime.child import ChildService
from walt.server.runtime.kept import ChildSpec
from walt.server.runtime.process import Launcher
from walt.server.runtime.units import IUnits, UnitState

ONE, OTHER = "walt-server-dhcpd.service", "walt-server-named.service"


class UnitsContract(Contract):
    """`make` returns an IUnits whose units ONE and OTHER are not running."""

    @abstractmethod
    async def make(self) -> IUnits:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    def break_at_start(self, unit: str, status: int) -> None:
        """Make a unit end as soon as it is started."""

    @abstractmethod
    def kill(self, unit: str) -> None:
        """End its process with signal 9."""

    @abstractmethod
    def forget(self, unit: str) -> None:
        """Make a unit unknown."""

    async def watched(self) -> IUnits:
        """Return it; what is told comes into `told`."""
        units = await self.make()
        verifyObject(IUnits, units)
        self.told: list[UnitState] = []
        return units

    async def test_life(self) -> None:
        """Start, start anew, reload, stop."""
        units = await self.watched()
        first = await units.restart(ONE)
        self.assertEqual(first.active, "active")
        self.assertTrue(first.pid)
        again = await units.restart(ONE)
        self.assertNotEqual(again.pid, first.pid)
        self.assertEqual((await units.reload(ONE)).pid, again.pid)
        # One that does not run is started by it.
        self.assertTrue((await units.reload(OTHER)).pid)
        self.assertEqual((await units.stop(ONE)).active, "inactive")
        self.assertEqual((await units.stop(ONE)).active, "inactive")

    async def test_failures(self) -> None:
        """One that ends at once, one that is not there, one that is none of ours."""
        units = await self.watched()
        self.break_at_start(ONE, 3)
        state = await units.restart(ONE)
        self.assertEqual((state.active, state.status), ("failed", 3))
        self.forget(OTHER)
        with self.assertRaises(Unavailable) as caught:
            await units.restart(OTHER)
        self.assertIn("walt-server-setup", str(caught.exception))
        with self.assertRaises(ValueError):
            await units.restart("ssh.service")

    async def test_told(self) -> None:
        """Its end is told to who watches it."""
        units = await self.watched()
        await units.restart(ONE)
        self.told.clear()
        self.kill(ONE)
        await self.until(lambda: self.told and self.told[-1].active == "failed")
        self.assertEqual(self.told[-1].status, 9)

    def until(self, condition: Any) -> Deferred[None]:
        """Wait for a condition."""
        from twisted.internet import reactor

        return until(reactor, condition)


class FakeTests(UnitsContract, TestCase):
    async def make(self) -> IUnits:
        self.fake = FakeUnits()
        for one in (ONE, OTHER):
            self.fake.watch(one, lambda state: self.told.append(state), lambda line: None)
        made: IUnits = self.fake
        return made

    def break_at_start(self, unit: str, status: int) -> None:
        self.fake.broken[unit] = status

    def kill(self, unit: str) -> None:
        self.fake.end(unit, 9)

    def forget(self, unit: str) -> None:
        self.fake.missing.add(unit)


class SystemdTests(UnitsContract, TestCase):
    timeout = patient(60)

    async def make(self) -> IUnits:
        from twisted.internet import reactor

        bus = Bus(Path(self.mktemp()).absolute())
        self.systemd = Systemd(ONE, OTHER)
        await bus.start(reactor)
        self.addCleanup(bus.stop)
        await self.systemd.connect(reactor, bus.socket)
        self.addCleanup(self.systemd.leave)

        def journal(listeners: Any) -> ChildService:
            return ChildService(
                reactor, Launcher(), ChildSpec("journal", ("sleep", "1000"))  # type: ignore[arg-type]
            )

        units = SystemdUnits(reactor, journal, socket=bus.socket)  # type: ignore[arg-type]
        for one in (ONE, OTHER):
            units.watch(one, lambda state: self.told.append(state), lambda line: None)
        units.startService()
        self.addCleanup(units.stopService)
        made: IUnits = units
        return made

    def break_at_start(self, unit: str, status: int) -> None:
        self.systemd.broken[unit] = status

    def kill(self, unit: str) -> None:
        self.systemd.change(unit, active="failed", status=9, result="signal")

    def forget(self, unit: str) -> None:
        del self.systemd.states[unit]
