"""Orders to systemd by a real message bus, and what goes wrong with them."""

from __future__ import annotations

import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from jeepney import DBusAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.patience import patient
from tests.server.adapters.systemd.stand_in import Bus, Stranger, Systemd, until
from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.systemd.bus import BUS, leave
from walt.server.adapters.systemd.journal import Journal, entry
from walt.server.adapters.systemd.units import (
    MANAGER,
    NAME,
    PROPERTIES,
    SystemdUnits,
    path_of,
)
from walt.server.runtime.child import ChildService
from walt.server.runtime.kept import LONGEST_PAUSE, ChildSpec
from walt.server.runtime.process import Launcher
from walt.server.runtime.units import UnitLauncher, UnitService, UnitState, Unseen

ONE = "walt-server-dhcpd.service"


class UnitsTests(TestCase):
    timeout = patient(60)

    async def setUp(self) -> None:
        """Start a bus with a systemd, and connect to it."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        place = tempfile.mkdtemp(prefix="bus")  # short: the path of a socket has 107 bytes
        self.addCleanup(shutil.rmtree, place)
        self.bus = Bus(Path(place))
        self.systemd = Systemd(ONE)
        await self.bus.start(reactor)
        self.addCleanup(self.bus.stop)
        await self.systemd.connect(reactor, self.bus.socket)
        self.addCleanup(lambda: self.systemd.leave())
        self.told: list[UnitState] = []

    def units(self, **options: Any) -> SystemdUnits:
        """Return what is tested, started."""
        units = SystemdUnits(
            self.reactor, lambda listeners: ChildService(
                self.reactor, Launcher(), ChildSpec("journal", ("sleep", "1000"))
            ), socket=self.bus.socket, **options,
        )
        units.watch(ONE, self.told.append, lambda line: None)
        units.startService()
        self.addCleanup(units.stopService)
        return units

    def until(self, condition: Any) -> Deferred[None]:
        """Wait for a condition."""
        return until(self.reactor, condition)

    async def test_orders(self) -> None:
        """What systemd is asked, in its words."""
        units = self.units()
        await units.restart(ONE)
        await units.reload(ONE)
        await units.stop(ONE)
        self.assertEqual(self.systemd.orders, [
            ("RestartUnit", ONE, "replace"), ("ReloadOrRestartUnit", ONE, "replace"),
            ("StopUnit", ONE, "replace"),
        ])
        self.assertEqual(self.systemd.subscribed, 1)

    async def test_jobs(self) -> None:
        """One whose end is told first, two that became one, one that fails, one without end."""
        units = self.units()
        self.systemd.before = True
        await units.restart(ONE)
        self.systemd.before = False
        for outcome, words in (("timeout", "did not end in time"), ("failed", "it failed"),
                               ("canceled", "took its place"), ("odd", "odd")):
            self.systemd.outcome = outcome
            with self.assertRaises(CommandFailed) as caught:
                await units.restart(ONE)
            self.assertIn(words, str(caught.exception))
        self.systemd.outcome, self.systemd.merged = None, True
        both = [units.restart(ONE), units.restart(ONE)]
        asked = len(self.systemd.orders) + 2
        await self.until(lambda: len(self.systemd.orders) == asked)
        # The answers are on their way: the end of the job may not be ahead of them.
        await deferLater(self.reactor, 0.2)
        self.systemd.end_job(ONE)
        for one in both:
            self.assertIsInstance(await one, UnitState)

    async def test_no_end(self) -> None:
        """A job that does not end is given up."""
        units = self.units(job_limit=0.5)
        self.systemd.outcome = None
        with self.assertRaises(Unavailable) as caught:
            await units.restart(ONE)
        self.assertIn(f"not done with {ONE}", str(caught.exception))

    async def test_an_end_that_was_not_told(self) -> None:
        """How the unit is counts then: one that runs has not failed."""
        units = self.units(job_limit=0.5)
        await units.restart(ONE)
        self.systemd.outcome = None
        self.assertEqual((await units.restart(ONE)).active, "active")
        with self.assertRaises(Unavailable):
            await units.stop(ONE)
        self.systemd.states[ONE] = {"active": "inactive"}
        self.assertEqual((await units.stop(ONE)).active, "inactive")

    async def test_answers_that_are_late(self) -> None:
        """A systemd that is busy says nothing about a unit: it is asked until it answers."""
        units = self.units(call_limit=patient(0.5))
        await units.restart(ONE)
        for member in ("Get", "RestartUnit"):
            self.systemd.deaf = {member}
            with self.assertRaises(Unseen) as caught:
                await units.restart(ONE)
            self.assertIn(f"no answer to {member}", str(caught.exception))
            self.told.clear()
            self.systemd.deaf = set()
            await self.until(lambda: self.told)
            self.assertEqual(self.told[-1].active, "active")
        self.systemd.deaf = {"Get"}
        self.systemd.change(ONE, active="failed", status=9)
        await deferLater(self.reactor, patient(0.8))  # it has been asked in vain
        self.systemd.deaf = set()
        await self.until(lambda: self.told[-1].status == 9)

    async def test_a_daemon_out_of_sight(self) -> None:
        """One that was started is no other one when its state is told late."""
        units = self.units(call_limit=patient(0.5))
        await units.stop(ONE)
        daemon = UnitService(
            self.reactor, units, ChildSpec("dhcpd", ()), on_line=lambda line: None
        )
        self.systemd.deaf = {"Get"}
        daemon.startService()
        self.addCleanup(daemon.stopService)
        await self.until(lambda: self.systemd.states[ONE]["active"] == "active")
        await deferLater(self.reactor, patient(0.8))
        self.systemd.deaf = set()
        await self.until(lambda: daemon.pid is not None)
        health = daemon.health
        self.assertEqual((health.state, health.restarts, health.trouble), ("running", 0, None))
        self.assertEqual([one for one, *_ in self.systemd.orders], ["StopUnit", "RestartUnit"])

    async def test_a_start_that_takes_long(self) -> None:
        """What is under way is not begun anew: it would never come to its end."""
        units = self.units(job_limit=0.5)
        await units.stop(ONE)
        daemon = UnitService(
            self.reactor, units, ChildSpec("dhcpd", ()), on_line=lambda line: None
        )
        self.systemd.outcome = None
        self.systemd.states[ONE] = {"active": "activating"}
        with self.assertRaises(Unseen):
            await units.restart(ONE)
        daemon.startService()
        self.addCleanup(daemon.stopService)
        await self.until(lambda: len(self.systemd.orders) == 3)
        await deferLater(self.reactor, 2.5)
        self.systemd.outcome = "done"
        self.systemd.change(ONE, active="active", pid=55)
        await self.until(lambda: daemon.pid == 55)
        health = daemon.health
        self.assertEqual((health.state, health.restarts, health.trouble), ("running", 0, None))
        self.assertEqual(len(self.systemd.orders), 3)

    async def test_an_end_while_nobody_listens(self) -> None:
        """A bus that starts anew at that moment: the unit is looked at once it is there."""
        units = self.units(again=1e6)
        await units.restart(ONE)
        self.systemd.outcome = None
        waiting = units.restart(ONE)
        await self.until(lambda: len(self.systemd.orders) == 2)
        self.bus.stop()

        def last() -> Any:
            return max(self.reactor.getDelayedCalls(), key=lambda one: one.getTime())

        await self.until(lambda: last().getTime() > self.reactor.seconds() + 1e5)
        await self.bus.start(self.reactor)
        again = Systemd(ONE)
        again.states[ONE] = {"active": "active", "pid": 99}
        await again.connect(self.reactor, self.bus.socket)
        self.addCleanup(again.leave)
        last().reset(0)
        self.assertEqual((await waiting).pid, 99)

    async def test_a_bus_that_crashes(self) -> None:
        """Who waits is told; a bus that comes back is used again, and states are asked for."""
        units = self.units()
        await units.restart(ONE)
        self.systemd.outcome = None
        waiting = units.restart(ONE)
        await self.until(lambda: len(self.systemd.orders) == 2)
        self.bus.stop()
        with self.assertRaises(Unavailable):
            await waiting
        with self.assertRaises(Unavailable):
            await units.stop(ONE)
        await self.bus.start(self.reactor)
        again = Systemd(ONE)
        again.states[ONE] = {"active": "failed", "status": 7}
        await again.connect(self.reactor, self.bus.socket)
        self.addCleanup(again.leave)
        await self.until(lambda: self.told and self.told[-1].status == 7)
        await units.restart(ONE)
        self.assertEqual([one[0] for one in again.orders], ["RestartUnit"])

    async def test_no_bus(self) -> None:
        """Orders fail in words where there is none."""
        self.bus.stop()
        self.bus.socket.unlink(missing_ok=True)
        units = self.units()
        with self.assertRaises(Unavailable) as caught:
            await units.restart(ONE)
        self.assertIn("systemd cannot be asked", str(caught.exception))

    async def test_a_daemon(self) -> None:
        """A daemon whose process is killed comes back as its unit, by an order."""
        units = self.units()
        daemon = UnitService(
            self.reactor, units, ChildSpec("dhcpd", ()), on_line=lambda line: None
        )
        self.assertIs(UnitLauncher(None, units).units, units)
        daemon.startService()
        await self.until(lambda: daemon.pid is not None)
        first = daemon.pid
        self.systemd.change(ONE, active="failed", status=9, result="signal")
        await self.until(lambda: daemon.health.state.startswith("restarting"))
        await self.until(lambda: daemon.pid not in (None, first))
        self.assertEqual((daemon.health.state, daemon.health.restarts), ("running", 1))
        self.assertIn("ended with status 9 (signal)", daemon.health.trouble or "")
        await daemon.stopService()
        self.assertEqual(self.systemd.states[ONE]["active"], "inactive")
        self.assertEqual(daemon.health.state, "stopped")


    async def test_signals_of_others(self) -> None:
        """Any program may send us the words of systemd: who sent them counts."""
        units = self.units()
        await units.restart(ONE)
        stranger = await Stranger.connect(self.reactor, self.bus.socket)
        self.addCleanup(leave, stranger)
        self.systemd.outcome, asked = None, len(self.systemd.questions)
        waiting = units.restart(ONE)
        await self.until(lambda: len(self.systemd.orders) == 2)
        job = "/org/freedesktop/systemd1/job/2"
        await stranger.tell_all(MANAGER, "JobRemoved", "uoss", (2, job, ONE, "failed"))
        await stranger.tell_all(MANAGER, "JobRemoved", "s", ("odd",))
        owner = DBusAddress(BUS.object_path, interface=BUS.interface)
        await stranger.tell_all(owner, "NameOwnerChanged", "sss", (NAME, "", ":1.9"))
        await stranger.tell_all(MANAGER, "JobRemoved", "ay", (b"x" * (1 << 20),))
        changed = DBusAddress(path_of(ONE), interface=PROPERTIES)
        for _ in range(20):
            await stranger.tell_all(changed, "PropertiesChanged", "sa{sv}as", ("x", {}, []))
        # The bus keeps the order: once it has answered, all has been sent.
        await stranger.call(BUS, "GetId", limit=patient(10))
        self.systemd.outcome = "done"
        self.systemd.end_job(ONE)
        self.assertIsInstance(await waiting, UnitState)
        self.assertEqual(len(self.systemd.questions), asked + 1)
        self.assertEqual(self.systemd.subscribed, 1)

    async def test_odd_signals_of_systemd(self) -> None:
        """One of its messages that nobody understands does not end the connection."""
        units = self.units()
        await units.restart(ONE)
        self.systemd.tell(MANAGER, "JobRemoved", "s", ("odd",))
        self.systemd.tell(MANAGER, "JobRemoved", "ay", (b"x" * (1 << 20),))
        self.systemd.tell(MANAGER, "JobRemoved", "ay", (b"x" * (1 << 17),))
        await units.restart(ONE)
        self.assertEqual(self.systemd.subscribed, 1)

    async def test_many_changes(self) -> None:
        """A unit that changes often is asked for again when it was told, not for each change."""
        units = self.units()
        await units.restart(ONE)
        await self.until(lambda: self.told)
        asked = len(self.systemd.questions)
        for pid in range(1, 200):
            self.systemd.change(ONE, active="active", pid=pid)
        await self.until(lambda: self.told[-1].pid == 199)
        self.assertLess(len(self.systemd.questions), asked + 200)

    async def test_another_systemd(self) -> None:
        """One that has executed itself anew is asked for its signals, and for what it knows."""
        units = self.units()
        await units.restart(ONE)
        self.systemd.leave()
        again = Systemd(ONE)
        self.addCleanup(again.leave)
        again.states[ONE] = {"active": "failed", "status": 8}
        await again.connect(self.reactor, self.bus.socket)
        await self.until(lambda: again.subscribed and self.told and self.told[-1].status == 8)
        await units.restart(ONE)
        self.assertEqual(again.states[ONE]["active"], "active")


class JournalTests(TestCase):
    timeout = patient(60)

    async def test_lines(self) -> None:
        """Each unit has its own; a journalctl that ends goes on where it was."""
        from twisted.internet import reactor

        place = Path(self.mktemp()).absolute()
        place.mkdir()
        program = place / "journalctl"
        program.write_text(f"""\
#!/bin/sh
echo "$*" >> {place}/called
test -e {place}/again ||
echo '{{"__CURSOR":"c1","_SYSTEMD_UNIT":"{ONE}","MESSAGE":"first"}}'
test -e {place}/again ||
echo '{{"__CURSOR":"c2","_SYSTEMD_UNIT":"other.service","MESSAGE":"not ours"}}'
echo '{{"__CURSOR":"c3","_SYSTEMD_UNIT":"{ONE}","MESSAGE":[98,195,40]}}'
echo 'no entry'
test -e {place}/again || exec touch {place}/again
echo '{{"__CURSOR":"c4","_SYSTEMD_UNIT":"{ONE}","MESSAGE":"one line\\u0085\\u2028still"}}'
exec sleep 1000
""")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

        class Here(Launcher):
            def command(self, argv: Any, **options: Any) -> list[str]:
                return [str(program) if one == "journalctl" else one
                        for one in super().command(argv, **options)]

        got: list[str] = []
        journal = Journal(reactor, Here(), {ONE: got.append})  # type: ignore[arg-type]
        # One that has got on is started again at once, whatever the pause is for others.
        journal._fails, began = 30, reactor.seconds()  # type: ignore[attr-defined]
        journal.startService()
        self.addCleanup(journal.stopService)
        called = place / "called"
        await until(reactor, lambda: called.exists() and len(called.read_text().split("\n")) > 2)
        await until(reactor, lambda: len(got) == 3)
        self.assertLess(reactor.seconds() - began, LONGEST_PAUSE)  # type: ignore[attr-defined]
        self.assertEqual(got, ["first", "b\ufffd(", "one line\x85\u2028still"])
        first, second = called.read_text().splitlines()
        self.assertRegex(first, r"^--namespace=walt .* --since=@[0-9]+\.[0-9]{6} ")
        self.assertIn(f"_SYSTEMD_UNIT={ONE}", first)
        self.assertIn("--cursor=c3", second)
        self.assertNotIn("--since", second)


class EntryTests(SynchronousTestCase):
    def test_odd_entries(self) -> None:
        """What journalctl may write instead of a text."""
        head = '{"__CURSOR":"c","_SYSTEMD_UNIT":"u",'
        for text, expected in (
            (head + '"MESSAGE":"a"}', ("c", "u", "a")), (head + '"MESSAGE":null}', ("c", "u", "")),
            (head + '"MESSAGE":[300]}', ("c", "u", "")),
            (head + '"MESSAGE":["a"]}', ("c", "u", "")),
            (head[:-1] + "}", ("c", "u", "")), ("[]", None), ("3", None), ("", None),
            ('{"MESSAGE":"a"}', None),
        ):
            self.assertEqual(entry(text), expected, text)

    def test_paths(self) -> None:
        """The object of a unit, as systemd names it."""
        self.assertEqual(
            path_of(ONE),
            "/org/freedesktop/systemd1/unit/walt_2dserver_2ddhcpd_2eservice",
        )
