"""Settings and removal of devices: done as a whole, whoever leaves meanwhile."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, FakeRequester, node, stored
from tests.fakes.services import FakeForwarder
from walt.common.errors import Conflict
from walt.server.domain.network.expose import ExposedPorts
from walt.server.domain.nodes.configuration import Configuration


class LeavingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = FakePlatform(stored(DEFAULT))
        self.done(self.fake.start())
        self.done(self.fake.registry.put(node(2)))
        self.forwarder, self.joe = FakeForwarder(), FakeRequester()
        fake = self.fake
        self.configuration = Configuration(
            fake.registry, fake.nodes, fake.monitor, fake.images,
            ExposedPorts(self.forwarder, lambda line: None), fake.logs, fake.platform,
            1 << 20, 64, fake.clock,
        )

    def done(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of what does not wait."""
        return self.successResultOf(Deferred.fromCoroutine(work))

    def change(self, word: str) -> Deferred[None]:
        """Begin to change a setting."""
        return Deferred.fromCoroutine(
            self.configuration.change("node-2", [word], self.joe, nodes_only=True)
        )

    def left(self, work: Deferred[None], gate: Deferred[None]) -> None:
        """Have the requester leave while something waits for a gate."""
        work.cancel()
        self.assertNoResult(work)
        gate.callback(None)
        self.failureResultOf(work, CancelledError)

    def test_settings_take_effect(self) -> None:
        """Ports are open as the setting says, whether the database or a port was waited for."""
        self.fake.store.gate = gate = Deferred()
        self.left(self.change("expose=80:8080"), gate)
        self.assertEqual(self.forwarder.forwards, {8080: ("192.168.1.2", 80)})
        self.forwarder.gate = gate = Deferred()
        self.left(self.change("expose=22:2222"), gate)
        self.assertEqual(self.forwarder.forwards, {2222: ("192.168.1.2", 22)})
        self.assertEqual(len(self.done(self.fake.lines("nodes"))), 2)

    def test_nothing_is_left(self) -> None:
        """A device that is forgotten has no port, no place in the database, and no state."""
        self.done(self.configuration.change(
            "node-2", ["expose=80:8080"], self.joe, nodes_only=True
        ))
        self.forwarder.gate = gate = Deferred()
        self.left(Deferred.fromCoroutine(
            self.configuration.forget("node-2", self.joe, force=True, keep_logs=False)
        ), gate)
        self.assertEqual(self.forwarder.forwards, {})
        self.assertNotIn(node(2).mac, self.fake.store.devices)

    def test_given_up_in_time(self) -> None:
        """Who leaves while log lines are counted forgets nothing."""
        self.fake.logs.count = lambda query, user: Deferred()  # type: ignore[assignment, method-assign]
        forgetting = Deferred.fromCoroutine(
            self.configuration.forget("node-2", self.joe, force=False, keep_logs=False)
        )
        forgetting.cancel()
        self.failureResultOf(forgetting, CancelledError)
        self.assertIsNotNone(self.fake.registry.by_name("node-2"))

    def test_acquired(self) -> None:
        """One line for an image, whatever the number of nodes."""
        self.done(self.fake.registry.put(*(node(number) for number in range(3, 9))))
        self.done(self.configuration.acquire("node-2,node-3", self.joe))
        told = "will now boot pc-x86-64-default."
        self.assertEqual(self.joe.out[1:], [f"Nodes node-2 and node-3 {told}"])
        self.joe.out.clear()
        self.done(self.configuration.acquire("free-nodes", self.joe))
        names = "node-4, node-5, node-6, node-7 and node-8"
        self.assertEqual(self.joe.out, [f"Nodes {names} {told}"])
        self.assertEqual({one.owner for one in self.fake.registry.nodes()}, {"joe"})

    def test_acquired_by_two_at_once(self) -> None:
        """Who has its copies of the default images first has the nodes; the other one is told."""
        give, gate = self.fake.images.give_default, Deferred[None]()

        async def slow_for_joe(user: str, fullname: str) -> str:
            if user == "joe":
                await gate
            return await give(user, fullname)

        self.patch(self.fake.images, "give_default", slow_for_joe)
        self.done(self.fake.registry.put(node(3)))
        late = Deferred.fromCoroutine(self.configuration.acquire("node-2,node-3", self.joe, []))
        self.done(self.configuration.acquire("node-3", FakeRequester("ann"), []))
        gate.callback(None)
        told = str(self.failureResultOf(late, Conflict).value)
        self.assertIn("node-3 belongs to ann now; nothing was changed", told)
        owners = {one.name: one.owner for one in self.fake.registry.nodes()}
        self.assertEqual(owners, {"node-2": "waltplatform", "node-3": "ann"})

    def test_acquired_from_whom_was_agreed(self) -> None:
        """A node that somebody got after the caller had looked stays theirs."""
        ann = FakeRequester("ann")
        self.done(self.configuration.acquire("node-2", ann, []))
        failure = self.failureResultOf(Deferred.fromCoroutine(
            self.configuration.acquire("node-2", self.joe, ["bob"])
        ), Conflict)
        self.assertIn("node-2 belongs to ann now", str(failure.value))
        self.done(self.configuration.acquire("node-2", self.joe, ["ann"]))
        self.done(self.configuration.acquire("node-2", ann))  # a program that tells nobody
        self.assertEqual(self.fake.registry.named("node-2").owner, "ann")
