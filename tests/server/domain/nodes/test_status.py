"""Boot states that are recorded."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import FakePlatform
from walt.common.errors import Unavailable
from walt.server.domain.devices.model import Device
from walt.server.runtime.coroutines import TOLD_EVERY, TRY_EVERY

NODES = [
    Device(f"02:00:00:00:01:{number:02x}", f"node{number}", "node", f"192.168.1.{number + 10}",
           model="pc-x86-64", image="alice/img:latest")
    for number in range(50)
]


class RecordedTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make nodes."""
        self.fake = FakePlatform()
        self.store, self.status = self.fake.store, self.fake.status
        self.successResultOf(Deferred.fromCoroutine(self.fake.registry.put(*NODES)))
        self.store.writes.clear()

    def test_many_at_once(self) -> None:
        """What changes while the database writes is written with the next ones, as it is then."""
        self.store.gate = gate = Deferred[None]()
        for node in NODES:
            self.status.booted(node.mac)
        self.status.down(NODES[7].mac, "?")
        gate.callback(None)
        self.assertEqual([len(macs) for macs in self.store.writes], [1, 49])
        self.assertEqual(
            self.store.states, {node.mac: node is not NODES[7] for node in NODES}
        )

    def test_database_away(self) -> None:
        """What could not be written for long is written once it can, without another change."""
        self.store.errors = [Unavailable("away") for _ in range(2 * TOLD_EVERY)]
        self.status.booted(NODES[0].mac)
        self.fake.clock.pump([TRY_EVERY] * (2 * TOLD_EVERY - 1))
        self.status.booted(NODES[1].mac)
        self.assertEqual(self.store.states, {})
        self.fake.clock.advance(TRY_EVERY)
        self.assertEqual(self.store.states, {NODES[0].mac: True, NODES[1].mac: True})

    def test_stopped_while_it_is_written(self) -> None:
        """What waits for its turn is recorded with the end of the server."""
        node, other = NODES[0], NODES[1]
        self.status.booted(other.mac)
        self.store.gate = Deferred[None]()  # for ever
        self.status.booted(node.mac)
        self.status.down(other.mac, "?")
        self.successResultOf(Deferred.fromCoroutine(self.status.let_go()))
        self.assertEqual(self.store.states, {node.mac: False, other.mac: False})
