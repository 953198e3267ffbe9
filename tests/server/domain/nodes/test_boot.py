from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import FakePlatform, FakeRequester, node, stored
from walt.common.errors import Unavailable
from walt.server.domain.nodes.clock import next_whole_second
from walt.server.domain.nodes.monitor import LOOK_EVERY
from walt.server.domain.nodes.reboot import REQUEST_LIMIT
from walt.server.domain.nodes.status import AT_ONCE, DISCONNECTED
from walt.server.runtime import slicing


class BootTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin()

    def begin(self, **limits: int) -> None:
        """Begin with a platform of other limits."""
        self.fake = FakePlatform(stored("waltplatform/pc-x86-64-default:latest"), **limits)
        self.devices = [node(2), node(3, virtual=True), node(4)]
        self.now(self.fake.start())
        self.now(self.fake.registry.put(*self.devices))
        self.status = self.fake.status

    def now(self, coroutine: Any) -> Any:
        """Return what a coroutine gives at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def lines(self) -> list[str]:
        """Return what was logged about nodes."""
        return self.now(self.fake.lines("nodes"))

    def reboot(self, *nodes: Any, requester: Any = None, hard: bool = False) -> Deferred[bool]:
        """Start a reboot."""

        async def work() -> bool:
            outcome = await self.fake.rebooter.reboot(
                nodes or self.devices, requester=requester, hard_only=hard,
                cause="reboot requested",
            )
            return outcome.ok

        return Deferred.fromCoroutine(work())


class StatusTests(BootTests):
    def test_life(self) -> None:
        """Booted once, down once, each logged and recorded."""
        mac = self.devices[0].mac
        self.status.booted(mac)
        self.status.booted(mac)
        self.assertTrue(self.status.is_booted(mac))
        self.assertEqual(self.fake.store.states, {mac: True})
        self.status.down(mac, DISCONNECTED)
        self.status.down(mac, DISCONNECTED)
        self.assertEqual(self.fake.store.states, {mac: False})
        self.assertEqual(self.lines(), [
            "node node-2 is booted", f"node node-2 is down ({DISCONNECTED})",
        ])

    def test_unknown_devices(self) -> None:
        """A switch, or nobody, is never booted."""
        self.status.booted("02:00:00:00:ff:01")
        self.status.booted("02:00:00:00:00:99")
        self.assertEqual(self.lines(), [])

    def restarted(self, grace: float = 180.0) -> FakePlatform:
        """Return the next server, over the same store."""
        fake = FakePlatform(grace=grace)
        fake.store.devices = self.fake.store.devices
        fake.store.states = self.fake.store.states
        self.now(fake.start())
        return fake

    def test_grace(self) -> None:
        """After a restart booted nodes stay so; those that stay away are down at its end."""
        for device in self.devices:
            self.status.booted(device.mac)
        fake = self.restarted()
        self.assertTrue(fake.status.is_booted(self.devices[0].mac))
        self.assertFalse(fake.status.is_booted(self.devices[1].mac))  # its machine restarts
        fake.status.booted(self.devices[2].mac)
        fake.clock.advance(180)
        self.assertFalse(fake.status.is_booted(self.devices[0].mac))
        self.assertTrue(fake.status.is_booted(self.devices[2].mac))
        self.assertEqual(
            self.now(fake.lines("nodes")), [f"node node-2 is down ({DISCONNECTED})"]
        )

    def test_reboot_after_a_restart(self) -> None:
        """A node that finds the new server while it goes down is not booted yet."""
        for device in self.devices:
            self.status.booted(device.mac)
        fake = self.restarted()
        leaving, staying = self.devices[0].mac, self.devices[2].mac
        fake.status.down(leaving, "cause: reboot requested")
        fake.clock.advance(1)
        fake.status.booted(leaving)
        self.assertFalse(fake.status.is_booted(leaving))
        fake.clock.advance(10)
        fake.status.booted(leaving)
        self.assertTrue(fake.status.is_booted(leaving))
        # One that comes back after the grace time is booted at once.
        fake.clock.advance(180)
        self.assertFalse(fake.status.is_booted(staying))
        fake.status.booted(staying)
        self.assertTrue(fake.status.is_booted(staying))

    def test_end_of_grace_of_many(self) -> None:
        """Those that stay away are down some at a time; who comes meanwhile stays booted."""
        crowd = [node(number) for number in range(10, 11 + 2 * AT_ONCE)]
        self.now(self.fake.registry.put(*crowd))
        for one in crowd:
            self.status.booted(one.mac)
        fake = self.restarted()
        counts: list[int] = []
        late: list[str] = []

        def look(mac: str, booted: bool, cause: str | None) -> None:
            counts.append(fake.status.count)
            if len(counts) == 1:
                fake.clock.callLater(0, come)

        def come() -> None:
            late.append(next(one.mac for one in crowd if fake.status.is_booted(one.mac)))
            fake.status.booted(late[0])

        before = fake.status.count
        fake.status.changed.observe(look)
        fake.clock.advance(180)
        self.assertEqual(len(counts), before - 1)
        self.assertEqual([one.mac for one in crowd if fake.status.is_booted(one.mac)], late)

    def test_orderly_stop(self) -> None:
        """A server that stops for good records that nobody is booted, whatever comes after."""
        self.status.booted(self.devices[0].mac)
        self.now(self.status.let_go())
        self.status.booted(self.devices[0].mac)
        self.assertEqual(self.fake.store.states, {self.devices[0].mac: False})

    def test_wait(self) -> None:
        """The answer comes when the last one is booted, or forgotten."""
        progress: list[Collection[str]] = []
        self.status.booted(self.devices[0].mac)
        waiting = Deferred.fromCoroutine(self.status.wait(
            [one.mac for one in self.devices], lambda missing: progress.append(set(missing))
        ))
        self.status.booted(self.devices[1].mac)
        self.assertNoResult(waiting)
        self.now(self.fake.nodes.forget(self.devices[2]))
        self.successResultOf(waiting)
        self.assertEqual([len(one) for one in progress], [2, 1])
        self.now(self.status.wait([self.devices[0].mac], progress.append))

    def test_cancelled_wait(self) -> None:
        """A client that left is not told any more."""
        progress: list[Collection[str]] = []
        waiting = Deferred.fromCoroutine(self.status.wait([self.devices[0].mac], progress.append))
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        self.status.booted(self.devices[0].mac)
        self.assertEqual(len(progress), 1)


class MonitorTests(BootTests):
    def check_at(self, *moments: float) -> list[list[str]]:
        """Return who was rebooted by checks at these times."""
        for moment in moments:
            self.fake.clock.advance(moment - self.fake.clock.seconds())
            self.fake.monitor.check()
        return self.fake.late

    def test_nothing_is_due(self) -> None:
        """All nodes are looked at when one may be late, or may be another one: not at each check.
        """
        looks: list[float] = []
        nodes = self.fake.registry.nodes
        self.patch(self.fake.registry, "nodes", lambda: (
            looks.append(self.fake.clock.seconds()) or nodes()  # type: ignore[func-returns-value]
        ))
        timeout = node(2, conf={"boot.timeout": 20, "boot.retries": 1})
        self.now(self.fake.registry.forget(*self.devices))
        self.now(self.fake.registry.put(timeout))
        self.assertEqual(self.check_at(0, 5, 10, 15), [])
        self.assertEqual(looks, [0])
        self.fake.monitor.started(timeout)
        self.assertEqual(self.check_at(20, 30), [])
        self.assertEqual(looks, [0, 20])
        self.assertEqual(len(self.check_at(35)), 1)
        self.now(self.fake.registry.put(replace(timeout, conf={
            "boot.timeout": 12, "boot.retries": 3,
        })))
        self.fake.monitor.adjust_retries(timeout, 2)
        self.assertEqual(len(self.check_at(40, 46, 48)), 2)
        self.assertEqual(looks, [0, 20, 35, 40, 48])
        self.check_at(60 + LOOK_EVERY, 61 + LOOK_EVERY)
        self.assertEqual(len(looks), 6)

    def test_many_are_late(self) -> None:
        """One check reboots, or gives up, some of them; the next ones the others."""
        self.begin(late_at_once=2)
        conf = {"boot.timeout": 10, "boot.retries": 1}
        crowd = [node(number, conf=conf) for number in range(10, 19)]
        self.now(self.fake.registry.forget(*self.devices))
        self.now(self.fake.registry.put(*crowd))
        given_up: list[str] = []
        self.fake.monitor.given_up.observe(
            lambda mac, reason: given_up.append(mac) if reason else None
        )
        late = self.check_at(0, 10, 10, 10, 10, 10, 10)
        self.assertEqual([len(some) for some in late], [2, 2, 2, 2, 1])
        for moment, count in ((20, 2), (20, 4), (20, 6), (20, 8), (20, 9), (20, 9)):
            self.check_at(moment)
            self.assertEqual(len(given_up), count)

    def test_time_out_and_retries(self) -> None:
        """Each time-out costs a retry; after the last one a node is left alone."""
        self.now(self.fake.registry.put(node(2, conf={"boot.timeout": 10, "boot.retries": 2})))
        self.now(self.fake.registry.forget(*self.devices[1:]))
        self.assertEqual(self.check_at(0, 9), [])
        self.assertEqual(self.check_at(10, 19, 20, 30, 40), [["node-2"], ["node-2"]])
        self.assertEqual(self.lines(), [
            "node-2: boot timeout reached, trying hard-reboot (1 retries left).",
            "node-2: boot timeout reached, trying hard-reboot (last try).",
        ])
        self.fake.monitor.reset_retries(node(2, conf={"boot.retries": 1}))
        self.assertEqual(len(self.check_at(50, 60, 70)), 3)

    def test_emulated(self) -> None:
        """A machine whose processor is emulated has more time, unless the setting says how much."""
        self.fake.emulated.add("node-2")
        self.now(self.fake.registry.forget(*self.devices[1:]))
        self.now(self.fake.registry.put(node(2)))
        self.assertEqual(self.check_at(0, 180, 719), [])
        self.assertEqual(self.check_at(720), [["node-2"]])
        self.now(self.fake.registry.put(node(2, conf={"boot.timeout": 60})))
        self.assertEqual(self.check_at(780), [["node-2"], ["node-2"]])

    def test_a_node_that_no_restart_helps_is_given_up(self) -> None:
        """Told once, when the last try is over; a reboot or a boot means hope again."""
        told: list[tuple[str, str | None]] = []
        self.fake.monitor.given_up.observe(lambda mac, reason: told.append((mac[-2:], reason)))
        self.now(self.fake.registry.forget(*self.devices[1:]))
        self.now(self.fake.registry.put(node(2, conf={"boot.retries": 1, "boot.timeout": 10})))
        self.assertEqual(self.check_at(0, 10), [["node-2"]])
        self.assertEqual(told, [])
        self.check_at(20, 21)
        self.assertEqual(told, [(
            "02", "it was not booted within 10 s although it was restarted once; it is left alone"
            " now",
        )])
        self.fake.monitor.reset_retries(node(2, conf={"boot.retries": 0}))
        self.assertEqual(told[1:], [("02", None)])
        self.check_at(30, 40)
        self.assertEqual(len(told), 2)  # without retries, nobody knows how long it takes

    def test_booted_nodes_are_left_alone(self) -> None:
        """A booted node is not late; when it goes down its time counts from there."""
        for device in self.devices:
            self.status.booted(device.mac)
        self.assertEqual(self.check_at(0, 1000), [])
        self.status.down(self.devices[0].mac, "x")
        self.assertEqual(self.check_at(1179), [])
        self.assertEqual(self.check_at(1180), [["node-2"]])

    def test_never(self) -> None:
        """No time-out, or a node switched off on purpose."""
        self.now(self.fake.registry.forget(*self.devices[1:]))
        self.now(self.fake.registry.put(node(2, conf={"boot.timeout": None})))
        self.assertEqual(self.check_at(0, 10_000), [])
        self.now(self.fake.registry.put(node(2)))
        self.status.booted(node(2).mac)
        self.status.down(node(2).mac, "x", "powersave")
        self.assertEqual(self.check_at(20_000), [])

    def test_adjusted(self) -> None:
        """A changed setting changes what is left, not below zero."""
        self.fake.monitor.check()
        self.fake.monitor.adjust_retries(self.devices[0], -100)
        self.assertEqual(self.check_at(180), [["node-3", "node-4"]])


class RebootTests(BootTests):
    def test_soft(self) -> None:
        """Nodes that accept are down at once, and that is all."""
        self.status.booted(self.devices[0].mac)
        requester = FakeRequester()
        self.assertTrue(self.successResultOf(self.reboot(requester=requester)))
        self.assertEqual(
            self.fake.link.requests, [(f"192.168.1.{number}", "REBOOT") for number in (2, 3, 4)]
        )
        self.assertEqual(requester.out, ["Nodes node-2, node-3 and node-4: rebooted ok."])
        self.assertEqual(
            self.lines()[-1],
            "node node-2 is down (cause: reboot requested, method: soft-reboot)",
        )
        self.assertEqual((self.fake.power.events, self.fake.machines.killed), ([], []))

    def test_the_log_says_who_asked_for_a_reboot(self) -> None:
        """One line a node, with the cause; none for what the server does by itself."""
        self.successResultOf(self.reboot(requester=FakeRequester()))
        self.assertEqual([line for line in self.lines() if " by " in line], [
            f"node node-{number}: reboot requested by joe" for number in (2, 3, 4)
        ])
        before = len(self.lines())
        self.successResultOf(self.reboot(requester=None))
        self.assertFalse([line for line in self.lines()[before:] if " by " in line])

    def test_trouble(self) -> None:
        """Who reboots a node that cannot boot is told why, and that is no success."""
        requester = FakeRequester()
        self.fake.provisioning.troubles = {self.devices[1].mac: "its image cannot be mounted"}
        self.assertFalse(self.successResultOf(self.reboot(requester=requester)))
        self.assertEqual(requester.out, ["Nodes node-2, node-3 and node-4: rebooted ok."])
        self.assertEqual(requester.err, [
            "Node node-3: cannot boot now (its image cannot be mounted); the server goes on trying"
        ])

    def test_hard(self) -> None:
        """Virtual nodes lose their machine, the others their power for two seconds."""
        self.fake.machines.running.add(self.devices[1].mac)
        for device in self.devices:
            self.status.booted(device.mac)
        requester = FakeRequester()
        done = self.reboot(requester=requester, hard=True)
        self.assertEqual(self.fake.link.requests, [])
        self.assertEqual(self.fake.machines.killed, [self.devices[1].mac])
        self.assertEqual(self.fake.power.events, ["off 02", "off 04"])
        self.fake.clock.advance(1.9)
        self.assertNoResult(done)
        self.fake.clock.advance(0.1)
        self.assertTrue(self.successResultOf(done))
        self.assertEqual(self.fake.power.events[2:], ["on 02", "on 04"])
        down = [line for line in self.lines() if "is down" in line]
        self.assertEqual({line.split("method: ")[-1] for line in down},
                         {"vnode hard-reboot)", "PoE hard-reboot)"})

    def test_mixed_failures(self) -> None:
        """One line for what went well, one for each distinct failure."""
        self.fake.link.refusals = {
            "192.168.1.2": "Connection timed out", "192.168.1.4": "Connection refused",
        }
        self.fake.power.off_errors = {
            self.devices[0].mac: "unknown LLDP network position",
            self.devices[2].mac: "forbidden on switch",
        }
        requester = FakeRequester()
        self.assertFalse(self.successResultOf(self.reboot(requester=requester)))
        self.assertEqual(requester.out, ["Node node-3: rebooted ok."])
        self.assertEqual(requester.err, [
            "Node node-4: failed soft-reboot (connection refused) and poe-reboot"
            " (forbidden on switch)",
            "Node node-2: failed soft-reboot (connection timed out) and poe-reboot"
            " (unknown LLDP network position)",
        ])

    def test_soft_refusal_then_power(self) -> None:
        """A node that refuses is power-cycled."""
        self.fake.link.refusals = {"192.168.1.2": "Connection refused"}
        done = self.reboot(self.devices[0])
        self.fake.clock.advance(2)
        self.assertTrue(self.successResultOf(done))
        self.assertEqual(self.lines()[-1], "Node node-2: rebooted ok.")

    def test_broken_off(self) -> None:
        """What fails once a port is off has it powered again."""
        self.fake.link.refusals = {"192.168.1.2": "Connection refused"}
        once = [RuntimeError("the switch went away")]
        power, really = self.fake.power, self.fake.power.on

        async def on(macs: Any) -> Any:
            if once:
                raise once.pop()
            return await really(macs)

        power.on = on
        done = self.reboot(self.devices[0])
        self.fake.clock.advance(2)
        self.failureResultOf(done, RuntimeError)
        self.assertEqual(power.events, ["off 02", "on 02"])
        self.assertIsNone(power.is_off(self.devices[0].mac))

    def test_port_already_off(self) -> None:
        """A node whose port is off is only switched on."""
        self.fake.power.reasons[self.devices[0].mac] = "powersave"
        done = self.reboot(self.devices[0])
        self.fake.clock.advance(2)
        self.assertTrue(self.successResultOf(done))
        self.assertEqual(self.fake.link.requests, [])
        self.assertEqual(self.fake.power.events, ["on 02"])

    def test_power_does_not_come_back(self) -> None:
        """A port that stays off is a failure, and the node is down."""
        self.fake.power.on_errors = {self.devices[0].mac: "SNMP issue"}
        self.status.booted(self.devices[0].mac)
        requester = FakeRequester()
        done = self.reboot(self.devices[0], requester=requester, hard=True)
        self.fake.clock.advance(2)
        self.assertFalse(self.successResultOf(done))
        self.assertEqual(requester.err, ["Node node-2: failed poe-reboot (SNMP issue)"])
        self.assertFalse(self.status.is_booted(self.devices[0].mac))

    def test_many_are_asked_some_at_a_time(self) -> None:
        """A request for each of those under way; deeds are logged in several turns."""
        self.begin(parallel=5)
        crowd = [node(number) for number in range(10, 11 + slicing.AT_ONCE)]
        self.now(self.fake.registry.put(*crowd))
        self.fake.link.gate = gate = Deferred()
        running = self.reboot(*crowd, requester=FakeRequester())
        self.assertEqual(len(self.lines()), slicing.AT_ONCE)
        self.fake.clock.advance(0)
        self.assertEqual(len(self.fake.link.requests), 5)
        gate.callback(None)
        self.assertTrue(self.successResultOf(running))
        self.assertEqual({ip for ip, _ in self.fake.link.requests}, {one.ip for one in crowd})

    def test_few_connections_are_made_in_one_turn(self) -> None:
        """The others come in the next ones, and all nodes are asked."""
        self.begin(begun_at_once=2)
        crowd = [node(number) for number in range(10, 15)]
        self.now(self.fake.registry.put(*crowd))
        self.fake.link.gate = gate = Deferred()
        running = self.reboot(*crowd, requester=FakeRequester())
        self.assertEqual(len(self.fake.link.requests), 2)
        self.fake.clock.advance(0)
        self.assertEqual(len(self.fake.link.requests), 5)
        gate.callback(None)
        self.assertNoResult(running)  # they have answered all at once
        self.fake.clock.advance(0)
        self.assertTrue(self.successResultOf(running))

    def test_too_many_do_not_answer(self) -> None:
        """The limit grows with the number of nodes; at its end nobody else is asked."""
        self.begin(parallel=2)
        self.fake.link.slow = {str(one.ip): Deferred() for one in self.devices}
        running = self.reboot()
        self.fake.clock.advance(2.5 * REQUEST_LIMIT - 1)
        self.assertNoResult(running)
        self.fake.clock.advance(1)
        error = self.failureResultOf(running, Unavailable)
        self.assertIn("try again later", str(error.value))
        self.assertEqual(len(self.fake.link.requests), 2)

    def test_a_slow_node_delays_no_other(self) -> None:
        """Nodes that answered at once may be up again before the slowest one answers."""
        slow, _, fast = self.devices
        self.status.booted(slow.mac)
        self.status.booted(fast.mac)
        assert slow.ip is not None
        self.fake.link.slow[slow.ip] = Deferred()
        running = self.reboot(slow, fast)
        self.assertFalse(self.status.is_booted(fast.mac))
        self.status.booted(fast.mac)
        self.fake.link.slow[slow.ip].callback(None)
        self.assertTrue(self.successResultOf(running))
        self.assertTrue(self.status.is_booted(fast.mac))
        self.assertFalse(self.status.is_booted(slow.mac))

    def test_requester_leaves(self) -> None:
        """Texts stop with the client, the reboot does not."""
        self.fake.link.gate = Deferred()
        done = self.reboot(self.devices[0], requester=FakeRequester())
        done.addErrback(lambda failure: None)
        done.cancel()
        self.status.booted(self.devices[0].mac)
        self.fake.link.gate.callback(None)
        self.assertFalse(self.status.is_booted(self.devices[0].mac))
        self.assertEqual(self.fake.workflows.running(), [])

    def test_waits_for_pending_changes(self) -> None:
        """A node reboots when its new image is there, not before."""
        self.fake.provisioning.gate = Deferred()
        done = self.reboot(self.devices[0])
        self.assertEqual(self.fake.link.requests, [])
        self.fake.provisioning.gate.callback(None)
        self.assertTrue(self.successResultOf(done))


class ClockTests(SynchronousTestCase):
    def test_whole_second(self) -> None:
        """The answer comes when the second changes."""
        clock = Clock()
        clock.advance(100.25)
        waiting = next_whole_second(clock, clock.seconds)
        clock.advance(0.74)
        self.assertNoResult(waiting)
        clock.advance(0.01)
        self.assertEqual(self.successResultOf(waiting), 101)

    def test_cancelled(self) -> None:
        """A node that left leaves no timer."""
        clock = Clock()
        waiting = next_whole_second(clock, clock.seconds)
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        self.assertEqual(clock.getDelayedCalls(), [])
