"""Power of ports on a switch in memory: it comes back, and is saved where nobody needs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, FakeRequester, node, stored
from tests.fakes.switch_store import FakeSwitchStore
from tests.fakes.switches import FakeSwitches
from tests.system.switch_lab import Switch
from walt.server.domain.devices.model import Device
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.switches.exploration import Exploration, target
from walt.server.domain.switches.interfaces import PortOff
from walt.server.domain.switches.live import LiveSwitches
from walt.server.domain.switches.power import LONGEST_CUT, SwitchPower
from walt.server.domain.switches.saving import IDLE, PowerSaving
from walt.server.domain.switches.views import SwitchViews

SWITCH = Device(
    "02:00:00:00:0a:01", "sw", "switch", "192.168.1.200", conf={
        "snmp.version": 2, "snmp.community": "lab", "lldp.explore": True, "poe.reboots": True,
    },
)


async def nobody(mac: str, ip: str | None, name: str) -> None:
    """Register nothing."""


class SwitchCase(SynchronousTestCase):
    """A switch that feeds nodes 2 and 3 at ports 1 and 2."""

    def setUp(self) -> None:
        self.fake = FakePlatform(stored(DEFAULT))
        self.nodes = [node(2), node(3)]
        self.do(self.fake.start())
        self.do(self.fake.registry.put(SWITCH, *self.nodes))
        self.lab = Switch("sw", SWITCH.mac)
        for port, one in enumerate(self.nodes, 1):
            self.lab.sees(one.mac, port)
        self.switches, self.store = FakeSwitches(), FakeSwitchStore()
        self.switches.tables[target(SWITCH)] = self.lab._table
        self.switches.writable = {self.lab.control(port) for port in (1, 2)}
        self.exploration, self.power = self.build()
        self.do(self.exploration.rescan("sw", FakeRequester(), self.power.restore))

    def build(self) -> tuple[Exploration, SwitchPower]:
        """Return what a server has after a start."""
        fake = self.fake
        exploration = Exploration(
            fake.registry, self.switches, self.store, fake.platform, lambda: 1e9, nobody
        )
        self.do(exploration.load())
        power = SwitchPower(
            fake.registry, exploration, self.switches, self.store, fake.platform, fake.clock
        )
        power.load()
        return exploration, power

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of what does not wait."""
        return self.successResultOf(Deferred.fromCoroutine(work))


class Counted(PortOff):
    """A record that counts how often it is looked at."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "node":
            Counted.looks += 1
        return super().__getattribute__(name)


class PowerTests(SwitchCase):
    def test_many_that_are_off(self) -> None:
        """Whether a node is off is told without a look at all that are."""
        macs = [f"02:00:00:00:0c:{number:02x}" for number in range(100)]
        self.store.off = {
            (SWITCH.mac, number): Counted(SWITCH.mac, number, "powersave", (1,), 1, mac)
            for number, mac in enumerate(macs, 10)
        }
        _, power = self.build()
        Counted.looks = 0
        self.assertEqual([power.is_off(mac) for mac in macs], ["powersave"] * len(macs))
        self.assertLessEqual(Counted.looks, len(macs))
        self.assertEqual(set(power.all_off()), set(macs))
        Counted.looks = 0
        self.assertEqual(self.do(power.on(macs[:2])).keys(), set(macs[:2]))
        self.assertLess(Counted.looks, len(macs))

    def test_next_start(self) -> None:
        """What was off when the server ended is powered at its next start."""
        macs = [one.mac for one in self.nodes]
        self.assertEqual(self.do(self.power.off(macs[:1], "hard-reboot")), {})
        self.assertEqual(self.do(self.power.off(macs[1:], "powersave")), {})
        self.assertEqual([self.lab.is_on(port) for port in (1, 2)], [False, False])
        _, later = self.build()
        self.assertEqual(later.is_off(macs[1]), "powersave")
        self.do(later.keep_on())
        self.assertEqual([self.lab.is_on(port) for port in (1, 2)], [True, True])
        self.assertEqual((self.store.off, later.is_off(macs[0])), ({}, None))

    def test_forgotten_cuts(self) -> None:
        """A port that nobody powers again is, after a while; one that saves power stays off."""
        macs = [one.mac for one in self.nodes]
        self.do(self.power.off(macs[:1], "hard-reboot"))
        self.do(self.power.off(macs[1:], "powersave"))
        self.do(self.power.keep_on())
        self.assertEqual([self.lab.is_on(port) for port in (1, 2)], [False, False])
        self.fake.clock.advance(LONGEST_CUT + 1)
        self.do(self.power.keep_on())
        self.assertEqual([self.lab.is_on(port) for port in (1, 2)], [True, False])

    def test_tried_again(self) -> None:
        """A switch that refuses to power a port is asked until it does."""
        mac = self.nodes[0].mac
        self.do(self.power.off([mac], "hard-reboot"))
        writable, self.switches.writable = self.switches.writable, set()
        self.assertIn("sw port g1: ", self.do(self.power.on([mac]))[mac])
        self.do(self.power.keep_on())
        self.assertEqual(self.power.is_off(mac), "hard-reboot")
        self.switches.writable = writable
        self.do(self.power.keep_on())
        self.assertTrue(self.lab.is_on(1))
        self.assertEqual(self.store.off, {})

    def test_read_with_power(self) -> None:
        """What was switched off is on again before people have a switch read; a failure is told."""
        mac, requester = self.nodes[0].mac, FakeRequester()
        self.do(self.power.off([mac], "powersave"))
        writable, self.switches.writable = self.switches.writable, set()
        self.do(self.exploration.rescan("sw", requester, self.power.restore))
        self.assertIn("sw: some ports could not be powered on again: ", requester.err[0])
        self.switches.writable = writable
        self.do(self.exploration.rescan("sw", requester, self.power.restore))
        self.assertIn("sw: ports that were powered off to save power are on", requester.err[-1])
        self.assertIsNone(self.power.is_off(mac))


class SavingTests(SwitchCase):
    def setUp(self) -> None:
        super().setUp()
        fake = self.fake
        self.reservations = Reservations(fake.clock)
        self.saving = PowerSaving(
            fake.registry, self.power, self.exploration, fake.status, fake.monitor,
            self.reservations, fake.platform, fake.clock,
        )
        self.saving.start()

    def after(self, seconds: float) -> list[bool]:
        """Return which ports are on when so much time has passed."""
        self.fake.clock.advance(seconds)
        self.do(self.saving.check())
        return [self.lab.is_on(port) for port in (1, 2)]

    def test_time(self) -> None:
        """Two hours without use; each use, and the end of one, begin them anew."""
        first, second = self.nodes
        self.do(self.fake.registry.put(replace(second, image="alice/img:latest")))
        self.assertEqual(self.after(IDLE - 1), [True, True])
        self.saving.used([first.mac])
        self.assertEqual(self.after(IDLE - 1), [True, True])
        self.assertEqual(self.after(2), [False, True])
        self.do(self.fake.registry.put(second))
        self.assertEqual(self.after(IDLE - 1), [False, True])
        self.assertEqual(self.after(2), [False, False])

    def test_reserved(self) -> None:
        """Nodes that a script has reserved stay on, and their time begins at its end."""
        first = self.nodes[0]
        self.reservations.take([first], "*", 1, 3 * IDLE, user="joe", holder="script")
        for _ in range(int(2 * IDLE / 30)):
            self.reservations.heard("joe", "script")
            self.assertTrue(self.after(30)[0])
        self.reservations.free("joe", "script")
        self.assertTrue(self.after(IDLE - 60)[0])
        self.assertFalse(self.after(60)[0])

    def test_failure(self) -> None:
        """It is logged, and tried again two hours later."""
        self.switches.writable = set()
        self.assertEqual(self.after(IDLE), [True, True])
        told = sorted(self.do(self.fake.lines("powersave.error")))
        self.assertEqual(len(told), 2)
        self.assertIn("node-2 could not be powered off: sw port g1: ", told[0])
        self.assertEqual(self.store.off, {})
        self.switches.writable = {self.lab.control(1)}
        self.assertEqual(self.after(IDLE - 1), [True, True])
        self.assertEqual(self.after(2), [False, True])

    def test_wake(self) -> None:
        """Who needs a node is told that it was asleep."""
        self.after(IDLE)
        requester = FakeRequester()
        self.do(self.saving.wake(self.nodes[:1], requester))
        self.do(self.saving.wake(self.nodes[:1], requester))
        self.assertEqual(
            requester.out, ["Node node-2: powered off to save power, powered on again now."]
        )
        self.assertEqual(self.after(1), [True, False])

    def test_forgotten(self) -> None:
        """A node, or a switch, that is forgotten leaves no port off."""
        self.after(IDLE)
        requester = FakeRequester()
        self.do(self.saving.let_go(self.nodes[0], requester))
        self.assertEqual(self.after(1), [True, False])
        self.do(self.saving.let_go(SWITCH, requester))
        self.assertEqual(self.after(1), [True, True])
        self.assertEqual(requester.out[1:], ["sw: ports that were powered off are on again."])

    def test_moved(self) -> None:
        """A node that boots elsewhere while its port is off: the port is powered again."""
        self.after(IDLE)
        mac = self.nodes[0].mac
        self.fake.status.booted(mac)
        self.assertEqual(self.after(1), [True, False])
        self.assertIsNone(self.exploration.place(mac))
        self.assertIsNone(self.power.is_off(mac))


class LiveSwitchesTests(SwitchCase):
    def test_made_anew_when_something_is_different(self) -> None:
        """The same rows, until a port is off, a device has another name, or a cable is elsewhere;
        then what all of them are.
        """
        clock = self.fake.clock
        views = SwitchViews(self.fake.registry, self.exploration, self.power, clock.seconds)
        live, first = LiveSwitches(views, clock), self.nodes[0]

        def wanted() -> dict[str, str]:
            return {row["mac"]: json.dumps(row) for row in views.map()}

        before, places = self.do(live.rows()), views.places()
        self.assertEqual(before, wanted())
        steps: tuple[Callable[[], Coroutine[Any, Any, Any]], ...] = (
            lambda: self.power.off([first.mac], "powersave"),
            lambda: self.fake.registry.put(replace(first, name="renamed")),
            lambda: self.exploration.set_port("sw", "1", ["name=desk"], FakeRequester()),
            lambda: self.exploration.forget_place(first.mac),
        )
        for step in steps:
            self.assertIs(self.do(live.rows()), before)
            self.assertIs(views.places(), places)
            self.do(step())
            after = self.do(live.rows())
            self.assertNotEqual(after, before)
            self.assertEqual(after, wanted())
            before, places = after, views.places()
            self.assertEqual(places, {
                mac: (place[0].name, self.exploration.port_name(place[0].mac, place[1]))
                for mac in (SWITCH.mac, *(one.mac for one in self.nodes))
                if (place := self.exploration.place(mac)) is not None
            })
