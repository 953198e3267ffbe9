from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, FakeRequester, node, stored
from walt.common.errors import Invalid, NotFound, Unavailable
from walt.server.domain.nodes.actions import FEW, LOOK_AGAIN
from walt.server.runtime.slicing import AT_ONCE


class NodeServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = FakePlatform(
            stored(DEFAULT), stored("joe/mine:latest", digit="b"),
            stored("joe/arm:latest", "rpi-b", "c"),
        )
        self.now(self.fake.start())
        self.now(self.fake.registry.put(
            node(2), node(3, "joe/mine:latest"), node(4, model="rpi-b")
        ))
        self.joe = FakeRequester()

    def now(self, coroutine: Any) -> Any:
        """Return what a coroutine gives at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def refused(self, nodes: str, image: str, error: type[Exception]) -> str:
        """Return the text of a refused association."""
        failure = self.failureResultOf(
            Deferred.fromCoroutine(self.fake.nodes.set_image(nodes, image, self.joe)), error
        )
        return str(failure.value)

    def images(self) -> list[str | None]:
        """Return what each node boots."""
        return [one.image for one in sorted(self.fake.registry.nodes(), key=lambda n: n.name)]

    def test_image(self) -> None:
        """Nodes that boot it already are told apart from the others."""
        self.now(self.fake.nodes.set_image("node-2,node-3", "mine", self.joe))
        self.assertEqual(self.images()[:2], ["joe/mine:latest"] * 2)
        self.assertEqual(self.joe.out, [
            "Node node-3 already uses this image.", "Node node-2 will now boot mine.",
        ])

    def test_the_log_says_who_chose_an_image_and_who_blinked(self) -> None:
        """With the image before; nothing for nodes that boot it already."""
        self.now(self.fake.nodes.set_image("node-2,node-3", "mine", self.joe))
        self.now(self.fake.nodes.blink("node-3", True, self.joe))
        self.now(self.fake.nodes.blink("node-3", False, self.joe))
        self.assertEqual(self.now(self.fake.lines("nodes")), [
            "node node-2: image joe/mine instead of waltplatform/pc-x86-64-default chosen by joe",
            "node node-3: blinking started by joe", "node node-3: blinking ended by joe",
        ])

    def test_default(self) -> None:
        """`default` frees nodes, each with the image of its model."""
        self.now(self.fake.nodes.set_image("node-3", "default", self.joe))
        self.assertEqual(self.images()[1], DEFAULT)
        self.assertIn("free", self.joe.out[0])
        self.assertIn("no default image for rpi-b", self.refused("node-4", "default", NotFound))

    def test_refusals_change_nothing(self) -> None:
        """Unknown nodes, unknown or bad images, models that the image lacks."""
        before = self.images()
        self.refused("ghost", "mine", NotFound)
        self.refused("node-2", "ghost", NotFound)
        self.refused("node-2", "../x", Invalid)
        self.assertIn("pc-x86-64; nothing was changed", self.refused("all-nodes", "arm", Invalid))
        self.assertEqual(self.images(), before)

    def test_who_leaves_did_it_all_the_same(self) -> None:
        """The choice of an image is told for every node, whenever the client is gone."""
        nodes = [node(number) for number in range(10, 10 + 2 * AT_ONCE)]
        self.now(self.fake.registry.put(*nodes))
        words = ",".join(one.name for one in nodes)
        for image, slow in (("mine", True), ("default", False)):
            before = len(self.now(self.fake.lines("nodes")))
            gate: Deferred[None] = Deferred()
            self.fake.store.gate = gate if slow else None  # of the database
            going = Deferred.fromCoroutine(self.fake.nodes.set_image(words, image, self.joe))
            going.cancel()
            self.assertNoResult(going)
            gate.callback(None)
            self.fake.clock.pump([0, 0, 0])
            self.failureResultOf(going, CancelledError)
            self.assertEqual(len(self.now(self.fake.lines("nodes"))) - before, len(nodes))

    def test_forgotten_whole(self) -> None:
        """A client that leaves while the database is slow leaves nothing of the device."""
        self.fake.status.booted(node(2).mac)
        self.fake.store.gate = gate = Deferred()
        going = Deferred.fromCoroutine(self.fake.nodes.forget(node(2)))
        going.cancel()
        gate.callback(None)
        self.failureResultOf(going, CancelledError)
        self.assertIsNone(self.fake.registry.by_name("node-2"))
        self.assertFalse(self.fake.status.is_booted(node(2).mac))

    def test_forget(self) -> None:
        """Logs of a forgotten node are stored first, listeners told, waiters released."""
        told: list[str] = []
        self.fake.nodes.forgotten.observe(lambda device: told.append(device.name))
        waiting = Deferred.fromCoroutine(self.fake.nodes.wait("node-2", self.joe))
        self.assertIn("node node-2", self.joe.labels[0])
        self.fake.logs.write(node(2).mac, "exp", "last words")
        self.now(self.fake.nodes.forget(node(2)))
        self.successResultOf(waiting)
        self.assertEqual(told, ["node-2"])
        self.assertIn("last words", [one.line for one in self.fake.log_store.lines])
        self.assertIsNone(self.fake.registry.by_name("node-2"))

    def test_who_waits_for_a_node_that_cannot_boot_is_told(self) -> None:
        """At once, or when it turns out; others are waited for, and who leaves is let go."""
        self.fake.provisioning.troubles = {node(2).mac: "no memory"}
        failure = self.failureResultOf(
            Deferred.fromCoroutine(self.fake.nodes.wait("node-2,node-3", self.joe)), Unavailable
        )
        self.assertEqual(str(failure.value), "node-2 cannot boot: no memory")
        waiting = Deferred.fromCoroutine(self.fake.nodes.wait("node-3", self.joe))
        self.fake.clock.advance(LOOK_AGAIN)
        self.assertNoResult(waiting)
        self.fake.provisioning.troubles = {node(3).mac: "no kernel"}
        self.fake.clock.advance(LOOK_AGAIN)
        failure = self.failureResultOf(waiting, Unavailable)
        self.assertEqual(str(failure.value), "node-3 cannot boot: no kernel")
        self.fake.provisioning.troubles = {}
        waiting = Deferred.fromCoroutine(self.fake.nodes.wait("node-3", self.joe))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.fake.clock.getDelayedCalls(), [])

    def test_a_crowd_is_looked_at_now_and_then(self) -> None:
        """Each arrival would be a look at all that are missing; the last ones are told one by one.
        """
        crowd = [node(number) for number in range(10, 50 + 2 * FEW)]
        self.now(self.fake.registry.put(*crowd))
        looks: list[int] = []
        summary = self.fake.progress.summary
        self.patch(self.fake.progress, "summary", lambda names: (
            looks.append(len(names)) or summary(names)  # type: ignore[func-returns-value]
        ))
        waiting = Deferred.fromCoroutine(
            self.fake.nodes.wait(",".join(one.name for one in crowd), self.joe)
        )
        looks.clear()
        for one in crowd[:-FEW - 1]:
            self.fake.status.booted(one.mac)
        self.assertEqual(looks, [])
        self.fake.clock.advance(LOOK_AGAIN)
        self.assertEqual(looks, [FEW + 1])
        for one in crowd[-FEW - 1:]:
            self.fake.status.booted(one.mac)
        self.successResultOf(waiting)
        self.assertEqual(looks[1:], [*range(FEW, 0, -1)])

    def test_reboot(self) -> None:
        """A set is rebooted, its result told."""
        self.assertTrue(self.now(
            self.fake.nodes.reboot("my-nodes", self.joe, hard_only=False, cause="acquire")
        ))
        self.assertEqual(self.joe.out, ["Node node-3: rebooted ok."])
