"""How far boots have come, and which are late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, FakeRequester, node, stored
from walt.common.errors import Invalid, LimitExceeded, Unavailable
from walt.server.domain.nodes.actions import LATE_TOLD, LOOK_AGAIN
from walt.server.domain.nodes.boots import Boot, Outcome, Stage
from walt.server.domain.nodes.monitor import LATE_BOOT, POWERSAVE
from walt.server.domain.nodes.progress import (
    COMPARED,
    LOADED,
    OVERTAKEN,
    READ_AT_ONCE,
    SAVED_AT_ONCE,
    BootProgress,
)
from walt.server.runtime.coroutines import TOLD_EVERY, TRY_EVERY

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

    def records(self, device: Any = ONE) -> list[Boot]:
        """Return what was recorded of a node, oldest first."""
        return list(self.now(self.progress.history([device], 100)))

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
        self.fake.clock.advance(OVERTAKEN)
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
        self.assertEqual([boot.seconds() for boot in self.records()], [20.0])

    def test_firmware_and_boot_loader_ask_in_turn(self) -> None:
        """PXE fetches iPXE, which asks again: one try."""
        for _ in range(2):
            self.progress.reached(ONE.mac, Stage.ADDRESS)
            self.fake.clock.advance(5)
        self.assertEqual([(one.tries, one.began) for one in self.records()], [
            (1, self.fake.clock.seconds() - 10),
        ])

    def test_a_boot_longer_than_before_is_late(self) -> None:
        """Compared with the last ones of this node with this image, whatever happened between."""
        self.progress.started(ONE)
        self.fake.clock.advance(1000)
        self.assertIsNone(self.progress.late(ONE.mac))  # nothing is known of this image
        self.fake.status.booted(ONE.mac)
        for _ in range(COMPARED):
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

    def test_a_node_that_begins_again_and_again(self) -> None:
        """Is told, whatever is known of earlier boots."""
        self.progress.started(ONE, "created")
        for _ in range(2):
            self.progress.reached(ONE.mac, Stage.ROOT)
            self.assertIsNone(self.progress.late(ONE.mac))
            self.progress.started(ONE)
        sentence = self.progress.late(ONE.mac) or ""
        self.assertIn("began to boot 3 times", sentence)
        self.assertIn("walt log show --consoles --issuers node-2", sentence)

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
        for seconds in range(1, COMPARED + 3):
            self.boot(seconds)
        after = self.restarted()
        self.fake.status.down(ONE.mac, "test")
        after.started(ONE)
        self.fake.clock.advance(100)
        self.assertIn(f"the last {COMPARED} boots", after.late(ONE.mac) or "")
        after.forget(ONE.mac)
        self.assertIsNone(after.stage(ONE.mac))
        self.assertEqual(after._times, {})

    def test_learned_beside_what_goes_on(self) -> None:
        """Boots of before the start come before those since, whichever are known first; those
        of many nodes are asked for in several turns.
        """
        for seconds in (1, 2, 3):
            self.boot(seconds)
        self.fake.clock.advance(1)
        after = BootProgress(
            self.fake.clock, self.fake.registry, self.fake.boots, self.fake.status.is_booted,
            lambda name: None,
        )
        self.now(after.load())
        self.progress = after
        self.fake.status.changed.observe(after.on_status)
        self.boot(4)
        self.now(after.learn())
        image = str(ONE.image)
        self.assertEqual(list(after._times[ONE.mac][image]), [1, 2, 3, 4])
        self.assertEqual([list(found) for found in after._of_kind.values()], [[1, 2, 3, 4]])
        crowd = [node(number) for number in range(10, 11 + READ_AT_ONCE // LOADED)]
        self.now(self.fake.registry.put(*crowd))
        learning = Deferred.fromCoroutine(after.learn())
        self.assertNoResult(learning)
        self.fake.clock.advance(0)
        self.successResultOf(learning)

    def restarted(self, **limits: int) -> BootProgress:
        """Return what the next server knows."""
        fake = self.fake
        after = BootProgress(
            fake.clock, fake.registry, fake.boots, fake.status.is_booted, fake.images.digest,
            **limits,
        )
        self.now(after.load())
        self.now(after.learn())
        return after

    def test_a_record_of_a_boot(self) -> None:
        """Each stage with its moment, once; the request and the machine are one start."""
        began = self.fake.clock.seconds()
        self.progress.started(ONE, "reboot requested")
        self.fake.clock.advance(1)
        self.progress.started(ONE)  # its machine
        for stage in (Stage.ADDRESS, Stage.SCRIPT, Stage.KERNEL, Stage.ROOT, Stage.SYSTEM):
            self.fake.clock.advance(1)
            self.progress.reached(ONE.mac, stage)
            if stage == Stage.KERNEL:
                self.fake.clock.advance(1)
                self.progress.reached(ONE.mac, stage)  # the next file
        self.fake.clock.advance(1)
        self.fake.status.booted(ONE.mac)
        self.assertEqual(self.records(), [Boot(
            ONE.mac, began, "node-2", DEFAULT, self.fake.images.digest(DEFAULT),
            "reboot requested", 1, {
                stage: began + 1 + stage + (stage > Stage.KERNEL) for stage in Stage
            }, Outcome.BOOTED,
        )])
        row = self.records()[0].row()
        self.assertEqual((row["ready"], row["stage"]), (began + 8, "ready"))

    def test_tries_of_one_boot(self) -> None:
        """A node that restarts by itself, or is restarted because it is late, tries again."""
        self.progress.started(ONE, "image change")
        self.progress.reached(ONE.mac, Stage.ROOT)
        self.progress.started(ONE)
        self.progress.reached(ONE.mac, Stage.SCRIPT)
        self.fake.clock.advance(OVERTAKEN)
        self.progress.reached(ONE.mac, Stage.ADDRESS)
        self.progress.started(ONE, LATE_BOOT)
        self.progress.started(ONE)
        [boot] = self.records()
        self.assertEqual((boot.cause, boot.tries), ("image change", 4))
        self.assertEqual((boot.stage, boot.outcome), (Stage.STARTED, Outcome.BOOTING))
        self.progress.gave_up(ONE.mac, "it was not booted")
        [boot] = self.records()
        self.assertEqual((boot.outcome, boot.reason), (Outcome.FAILED, "it was not booted"))

    def test_an_address_that_is_told_late(self) -> None:
        """dhcpd's line may come after the request that the node made with the address, or twice."""
        began = self.fake.clock.seconds()
        self.progress.started(ONE)
        for stage in (Stage.SCRIPT, Stage.KERNEL, Stage.ADDRESS, Stage.ADDRESS):
            self.fake.clock.advance(1)
            self.progress.reached(ONE.mac, stage)
        self.fake.clock.advance(1)
        self.progress.reached(ONE.mac, Stage.KERNEL)  # its next file
        [boot] = self.records()
        self.assertEqual((boot.tries, boot.moments), (1, {
            Stage.STARTED: began, Stage.SCRIPT: began + 1, Stage.KERNEL: began + 2,
            Stage.ADDRESS: began + 1,
        }))

    def test_a_boot_that_another_one_ends(self) -> None:
        """A person reboots a node that is not up yet: two records."""
        self.progress.started(ONE, "created")
        self.progress.reached(ONE.mac, Stage.ADDRESS)
        self.fake.clock.advance(1)
        self.progress.started(ONE, "image change")
        found = [(one.cause, one.outcome, one.reason, one.stage) for one in self.records()]
        self.assertEqual(found, [
            ("created", Outcome.INTERRUPTED, "image change", Stage.ADDRESS),
            ("image change", Outcome.BOOTING, None, Stage.STARTED),
        ])

    def test_what_is_no_boot(self) -> None:
        """A node that is switched off to save power; what a node that was removed still asks."""
        self.boot(1)
        self.fake.status.down(ONE.mac, "test", POWERSAVE)
        self.assertEqual(len(self.records()), 1)
        self.progress.reached("02:00:00:00:00:99", Stage.ADDRESS)
        self.assertEqual(len(self.now(self.fake.boots.last_boots(None, 9))), 1)

    def test_a_boot_goes_on_with_the_next_server(self) -> None:
        """Its record has what both have seen."""
        self.progress.started(ONE, "created")
        self.fake.clock.advance(3)
        after = self.restarted()
        after.reached(ONE.mac, Stage.ADDRESS)
        [boot] = self.records()
        self.assertEqual((boot.cause, boot.tries, len(boot.moments)), ("created", 1, 2))

    def test_the_image_that_was_booted(self) -> None:
        """It may change until the script is fetched."""
        self.progress.started(ONE)
        self.now(self.fake.registry.put(replace(ONE, image="joe/mine:latest")))
        self.progress.reached(ONE.mac, Stage.SCRIPT)
        self.now(self.fake.registry.put(ONE))
        self.progress.reached(ONE.mac, Stage.KERNEL)
        [boot] = self.records()
        self.assertEqual((boot.image, boot.digest), ("joe/mine:latest", None))

    def test_a_database_that_is_away(self) -> None:
        """What could not be written is written when it is back, with what came meanwhile."""
        self.fake.boots.errors.append(Unavailable("away"))
        self.progress.started(ONE)
        self.assertEqual(self.records(), [])
        self.progress.started(TWO)
        self.fake.clock.advance(TRY_EVERY)
        self.assertEqual(len(self.now(self.fake.boots.last_boots(None, 9))), 2)
        self.fake.boots.errors.append(Invalid("never"))
        self.progress.started(ONE, "image change")
        self.flushLoggedErrors(Invalid)
        self.progress.reached(TWO.mac, Stage.ADDRESS)
        self.assertEqual([one.cause for one in self.records()], [None])

    def test_records_of_many(self) -> None:
        """More than an answer may have are refused; the last ones of all can be had."""
        for seconds in (10, 20):
            self.boot(seconds)
        self.progress.started(TWO)
        last = self.now(self.progress.history([ONE, TWO], 5, 2))
        self.assertEqual([one.mac for one in last], [ONE.mac, TWO.mac])
        few = self.restarted(most_told=2)
        work = Deferred.fromCoroutine(few.history([ONE, TWO], 5))
        self.assertIn("more than 2 records", str(self.failureResultOf(work, LimitExceeded).value))

    def test_a_database_that_is_away_for_long(self) -> None:
        """Records are written once it is back, without another one."""
        self.fake.boots.errors += [Unavailable("away") for _ in range(2 * TOLD_EVERY)]
        self.progress.started(ONE)
        self.fake.clock.pump([TRY_EVERY] * (2 * TOLD_EVERY - 1))
        self.assertEqual(self.records(), [])
        self.fake.clock.advance(TRY_EVERY)
        self.assertEqual(len(self.records()), 1)

    def test_many_records(self) -> None:
        """All nodes boot while the database is away: no turn makes statements of all of them."""
        many = [
            replace(ONE, mac=f"02:00:00:01:{n >> 8:02x}:{n & 255:02x}", name=f"many{n}", ip=None)
            for n in range(SAVED_AT_ONCE * 2 + 10)
        ]
        self.now(self.fake.registry.put(*many))
        self.fake.boots.errors.append(Unavailable("away"))
        for one in many:
            self.progress.started(one)
        sizes: list[int] = []
        save = self.fake.boots.save_boots

        async def count(boots: Sequence[Boot]) -> None:
            sizes.append(len(boots))
            await save(boots)

        self.patch(self.fake.boots, "save_boots", count)
        self.fake.clock.advance(TRY_EVERY)
        self.assertEqual(sizes, [SAVED_AT_ONCE, SAVED_AT_ONCE, 9])

    def test_a_record_that_is_refused(self) -> None:
        """What the database does not take of one node is not lost for the others."""
        self.fake.boots.errors.append(Unavailable("away"))
        self.fake.boots.refused.add(ONE.mac)
        self.progress.started(TWO)
        self.progress.started(ONE)
        self.progress.reached(TWO.mac, Stage.ADDRESS)
        self.fake.clock.advance(TRY_EVERY)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        found = self.now(self.fake.boots.last_boots(None, 9))
        self.assertEqual([(one.mac, one.stage) for one in found], [(TWO.mac, Stage.ADDRESS)])

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

    def test_many_are_late(self) -> None:
        """Some are told of, and how many more there are."""
        crowd = [node(number) for number in range(10, 12 + LATE_TOLD)]
        self.now(self.fake.registry.put(*crowd))
        joe = FakeRequester()
        for one in crowd:
            self.boot(5, one)
        for one in crowd:
            self.fake.status.down(one.mac, "test")
        waiting = Deferred.fromCoroutine(
            self.fake.nodes.wait(",".join(one.name for one in crowd), joe)
        )
        self.fake.clock.advance(100)
        self.assertEqual(len(joe.err), LATE_TOLD + 1)
        self.assertEqual(joe.err[-1], "2 more nodes are late.")
        for one in crowd:
            self.fake.status.booted(one.mac)
        self.successResultOf(waiting)

    def test_memory_is_bounded(self) -> None:
        """By the images and models there are, and what is kept of each."""
        for _ in range(3 * COMPARED):
            self.boot(20)
            self.boot(30, TWO)
        kept = self.progress._times.values()
        self.assertEqual({len(times) for of in kept for times in of.values()}, {COMPARED})
        self.assertEqual([len(one) for one in self.progress._of_kind.values()], [COMPARED])
