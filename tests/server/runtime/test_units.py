"""A daemon that is a unit: kept running, whatever systemd says."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.units import FakeUnits
from walt.server.runtime.kept import LONGEST_PAUSE, ChildSpec
from walt.server.runtime.units import UnitService, UnitState, unit_of
from walt.server.runtime.watching import NoAnswer, Patience, Watch

ONE = "walt-server-dhcpd.service"


class UnitServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.units = Clock(), FakeUnits()
        self.lines: list[str] = []
        self.alive: list[bool] = []
        self.daemon = UnitService(
            self.clock, self.units, ChildSpec("dhcpd", ()), on_line=self.lines.append
        )
        self.daemon.observe(self.alive.append)

    def count(self, what: str) -> int:
        """Return how many orders of a kind were given."""
        return self.units.orders.count((what, ONE))

    def test_names(self) -> None:
        """Units of others cannot be named."""
        self.assertEqual(unit_of("dhcpd"), ONE)
        for name in ("", "../ssh", "a b", "x.service", "dhcpd.service --now", "A"):
            with self.assertRaises(ValueError):
                unit_of(name)

    def test_life(self) -> None:
        """Started, reloaded, restarted, stopped."""
        self.assertFalse(self.daemon.reload())
        self.daemon.startService()
        self.assertEqual((self.daemon.health.state, self.alive), ("running", [True]))
        first = self.daemon.pid
        self.assertTrue(self.daemon.reload())
        self.assertEqual(self.daemon.pid, first)
        self.successResultOf(self.daemon.restart())
        self.assertNotEqual(self.daemon.pid, first)
        self.assertEqual(self.alive, [True, False, True])
        self.units.write(ONE, "a line")
        self.assertEqual(self.lines, ["a line"])
        self.successResultOf(self.daemon.stopService())
        self.assertEqual(self.alive[-1], False)
        self.assertEqual([one for one, _ in self.units.orders],
                         ["restart", "reload", "restart", "stop"])
        self.successResultOf(self.daemon.restart())
        self.assertEqual(self.count("restart"), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_killed(self) -> None:
        """One that ends by itself is started again, after pauses that grow up to a limit."""
        self.daemon.startService()
        self.units.broken[ONE] = 1
        self.units.end(ONE, 9)
        self.assertEqual(self.daemon.health.state, "restarting in 1 s")
        self.assertIn("ended with status 9 (signal)", self.daemon.health.trouble or "")
        for _ in range(10):
            self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.daemon.health.state, f"restarting in {LONGEST_PAUSE:g} s")
        self.assertIn("status 1", self.daemon.health.trouble or "")
        self.units.broken.clear()
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual((self.daemon.health.state, self.daemon.health.restarts), ("running", 11))
        self.units.broken[ONE] = 1
        self.units.end(ONE, 9)
        self.successResultOf(self.daemon.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_there(self) -> None:
        """Why an order failed is told, and it is tried again."""
        self.units.missing.add(ONE)
        self.daemon.startService()
        self.assertIn("run: walt-server-setup", self.daemon.health.trouble or "")
        self.assertTrue(self.daemon.health.state.startswith("restarting"))
        self.units.missing.clear()
        self.clock.advance(1)
        self.assertEqual(self.daemon.health.state, "running")
        self.units.missing.add(ONE)
        self.successResultOf(self.daemon.stopService())

    def test_a_busy_systemd(self) -> None:
        """What it tells late is neither trouble nor a restart; an end is one."""
        self.units.busy = True
        self.daemon.startService()
        self.assertEqual((self.daemon.health.state, self.daemon.pid), ("running", None))
        self.units.tell(ONE)
        pid = self.units.states[ONE].pid
        self.assertEqual(self.daemon.pid, pid)
        self.assertTrue(self.daemon.reload())
        health = self.daemon.health
        self.assertEqual((health.pid, health.restarts, health.trouble), (pid, 0, None))
        self.successResultOf(self.daemon.restart())
        self.assertEqual(self.alive, [True, False, True])
        self.units.end(ONE, 3)
        self.assertIn("status 3", self.daemon.health.trouble or "")
        self.assertEqual(self.daemon.health.restarts, 2)
        self.clock.advance(1)
        self.assertEqual((self.daemon.health.state, self.count("restart")), ("running", 3))
        self.successResultOf(self.daemon.stopService())

    def test_an_order_that_nobody_got(self) -> None:
        """The process that runs has its former files: the order is given again, and is no
        restart before it is."""
        self.units.states[ONE] = UnitState("active", 55)
        self.units.away = True
        self.daemon.startService()
        for _ in range(5):
            self.units.tell(ONE)
            self.assertTrue(self.daemon.health.state.startswith("restarting"))
            self.assertIsNone(self.daemon.pid)
            self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.daemon.health.restarts, 0)
        self.units.away = False
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.daemon.health.state, "running")
        self.assertNotIn(self.daemon.pid, (None, 55))
        self.assertEqual(self.daemon.health.restarts, 0)
        self.units.tell(ONE)
        self.units.end(ONE, 1)
        self.daemon._changed(UnitState("active", 77))
        self.assertEqual((self.daemon.pid, self.daemon.health.restarts), (77, 1))

    def test_a_reload_that_fails(self) -> None:
        """It is told, and the process, which goes on, is left alone."""
        self.daemon.startService()
        pid = self.daemon.pid
        self.units.deaf.add(ONE)
        self.assertTrue(self.daemon.reload())
        self.assertEqual((self.daemon.pid, self.daemon.health.state), (pid, "running"))
        self.assertIn("did not do ReloadOrRestartUnit", self.daemon.health.trouble or "")

    def test_conditions(self) -> None:
        """A unit that does not start for its conditions is told as such."""
        self.units.held = []
        self.daemon.startService()
        self.assertEqual(self.daemon.health.state, "running")
        self.daemon._units.broken[ONE] = 0  # type: ignore[attr-defined]
        (order,) = self.units.held
        self.units._carry_out = (  # type: ignore[method-assign]
            lambda what, unit: UnitState("inactive")
        )
        order.callback(None)
        self.assertIn("conditions are not met", self.daemon.health.trouble or "")

    def test_orders_overlap(self) -> None:
        """What is told while an order is carried out, and the end of one that was overtaken."""
        self.units.held = []
        self.daemon.startService()
        self.units.end(ONE, 15)  # the former process
        self.assertEqual(self.daemon.health.state, "running")
        again = self.daemon.restart()
        first, second = self.units.held
        self.units.broken[ONE] = 1
        first.callback(None)
        self.assertEqual(self.daemon.health.state, "running")
        self.units.broken.clear()
        second.callback(None)
        self.successResultOf(again)
        self.assertEqual(self.daemon.health.state, "running")
        self.assertIsNotNone(self.daemon.pid)

    def test_somebody_else(self) -> None:
        """A unit that a person starts while it waits for its time is taken as running."""
        self.daemon.startService()
        self.units.end(ONE, 1)
        self.daemon._changed(UnitState("active", 77))
        self.assertEqual((self.daemon.pid, self.daemon.health.state), (77, "running"))
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.count("restart"), 1)

    def test_watched(self) -> None:
        """One that does not answer is restarted by an order, as any daemon."""
        answers = False

        async def probe() -> None:
            if not answers:
                raise NoAnswer("silence")

        watch = Watch(self.clock, self.daemon, probe, patience=Patience(5, 5, 2, 10))
        self.daemon.startService()
        self.assertNoResult(watch.answered())
        for _ in range(60):
            self.clock.advance(1)
        self.assertGreater(self.count("restart"), 1)
        answers = True
        answered = watch.answered()
        for _ in range(20):
            self.clock.advance(1)
        self.assertTrue(self.successResultOf(answered))
