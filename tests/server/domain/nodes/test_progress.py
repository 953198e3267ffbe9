"""How far boots have come, and which are late."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, FakeRequester, node, stored
from walt.server.domain.nodes.progress import KEPT, BootProgress, Stage
from walt.server.domain.nodes.service import LOOK_AGAIN

ONE, TWO = node(2), node(3)


class ProgressTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = FakePlatform(stored(DEFAULT))
        self.now(self.fake.start())
        self.now(self.fake.registry.put(ONE, TWO))
        self.progress = self.fake.progress

    def now(self, coroutine: Any) -> Any:
        """Return what a coroutine gives at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def boot(self, seconds: float, device: Any = ONE) -> None:
        """Have a node boot in so many seconds."""
        self.fake.status.down(device.mac, "test")
        self.progress.started(device)
        self.fake.clock.advance(seconds)
        self.fake.status.booted(device.mac)

    def test_stages(self) -> None:
        """What a node asks for and logs tells how far it is."""
        found = [self.progress.stage(ONE.mac)]
        self.progress.started(ONE)
        for reach in (
            lambda: self.progress.reached(ONE.mac, Stage.ADDRESS),
            lambda: self.progress.boot_file(ONE.ip or "", "start.ipxe"),
            lambda: self.progress.boot_file(ONE.ip or "", "kernel"),
            lambda: self.progress.init_lines(ONE.mac, "x\nStarting up.\ny"),
            lambda: self.progress.init_lines(ONE.mac, "Handing over to /sbin/init."),
        ):
            reach()
            found.append(self.progress.stage(ONE.mac))
        self.assertEqual(found, [
            None, "DHCP done", "boot script fetched", "fetching the kernel", "root mounted",
            "its system is starting",
        ])
        self.progress.reached(ONE.mac, Stage.ADDRESS)  # its own system asks for an address
        self.assertEqual(self.progress.stage(ONE.mac), "its system is starting")
        self.progress.boot_file(ONE.ip or "", "start.ipxe")  # it restarted
        self.assertEqual(self.progress.stage(ONE.mac), "boot script fetched")
        self.fake.status.booted(ONE.mac)
        self.progress.reached(ONE.mac, Stage.ROOT)
        self.assertIsNone(self.progress.stage(ONE.mac))

    def test_a_board_that_was_off_starts_when_it_asks_again(self) -> None:
        """What it asked for long ago is no part of its boot."""
        self.progress.reached(ONE.mac, Stage.ADDRESS)
        self.fake.clock.advance(5000)
        self.progress.reached(ONE.mac, Stage.ADDRESS)
        self.fake.clock.advance(20)
        self.fake.status.booted(ONE.mac)
        self.assertEqual(self.fake.store.boot_times, {(ONE.mac, DEFAULT): [20.0]})

    def test_a_boot_longer_than_before_is_late(self) -> None:
        """Compared with the last ones of this node with this image, whatever happened between."""
        self.progress.started(ONE)
        self.fake.clock.advance(1000)
        self.assertIsNone(self.progress.late(ONE.mac))  # nothing is known of this image
        self.fake.status.booted(ONE.mac)
        for _ in range(KEPT):
            self.boot(20)
        self.fake.status.down(ONE.mac, "test")
        self.progress.reached(ONE.mac, Stage.ROOT)
        self.fake.clock.advance(35)
        self.assertIsNone(self.progress.late(ONE.mac))
        self.fake.clock.advance(1)
        self.assertEqual(self.progress.late(ONE.mac), (
            "Node node-2 is late: it started 36 s ago, and the last 10 boots with this image took"
            " 20 s at most. It has reached: root mounted."
        ))

    def test_other_nodes_of_the_model_are_compared(self) -> None:
        """For a node that never booted this image; others images tell nothing."""
        self.boot(20, TWO)
        self.progress.started(ONE)
        self.fake.clock.advance(100)
        self.assertIn("the last boot with this image", self.progress.late(ONE.mac) or "")
        self.now(self.fake.registry.put(replace(ONE, image="joe/mine:latest")))
        self.assertIsNone(self.progress.late(ONE.mac))

    def test_times_are_remembered(self) -> None:
        """By the next server, too; not those of a node that was forgotten."""
        for seconds in range(1, KEPT + 3):
            self.boot(seconds)
        kept = [float(one) for one in range(3, KEPT + 3)]
        self.assertEqual(self.fake.store.boot_times, {(ONE.mac, DEFAULT): kept})
        after = BootProgress(
            self.fake.clock, self.fake.registry, self.fake.store, self.fake.status.is_booted
        )
        self.now(after.load())
        self.fake.status.down(ONE.mac, "test")
        after.started(ONE)
        self.fake.clock.advance(100)
        self.assertIsNotNone(after.late(ONE.mac))
        after.forget(ONE.mac)
        self.assertIsNone(after.stage(ONE.mac))
        self.assertEqual(after._times, {})

    def test_who_waits_sees_the_stages_and_is_told_of_late_nodes(self) -> None:
        """The label changes with them; each late node is told once."""
        joe = FakeRequester()
        self.boot(10)
        self.fake.status.down(ONE.mac, "test")
        waiting = Deferred.fromCoroutine(self.fake.nodes.wait("node-2,node-3", joe))
        self.progress.reached(ONE.mac, Stage.ROOT)
        self.progress.reached(TWO.mac, Stage.ADDRESS)
        self.fake.clock.advance(LOOK_AGAIN)
        self.assertEqual(joe.labels, [
            "Waiting for bootup of nodes node-2 and node-3 (1 started)",
            "Waiting for bootup of nodes node-2 and node-3 (1 DHCP done, 1 root mounted)",
        ])
        self.fake.status.booted(TWO.mac)
        self.assertEqual(joe.labels[-1], "Waiting for bootup of node node-2: root mounted")
        self.fake.clock.pump([LOOK_AGAIN] * 60)
        self.assertEqual([line[:22] for line in joe.err], ["Node node-2 is late: i"])
        self.fake.status.booted(ONE.mac)
        self.successResultOf(waiting)

    def test_memory_is_bounded(self) -> None:
        """By the images and models there are, and what is kept of each."""
        for _ in range(3 * KEPT):
            self.boot(20)
            self.boot(30, TWO)
        self.assertEqual({len(times) for times in self.fake.store.boot_times.values()}, {KEPT})
        self.assertEqual([len(one) for one in self.progress._of_kind.values()], [KEPT])
