from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import FakePlatform, FakeRequester, node
from walt.common.errors import Invalid
from walt.server.domain.nodes.reboot import Outcome


class ClientRebootTests(SynchronousTestCase):
    """Nodes that a client reboots by its own means (spec server §4.3, step 5a)."""

    def setUp(self) -> None:
        self.fake = FakePlatform()
        self.devices = [node(2), node(3, virtual=True), node(4)]
        self.now(self.fake.start())
        self.now(self.fake.registry.put(*self.devices))
        self.fake.link.refusals = {"192.168.1.2": "Connection timed out"}
        self.requester = FakeRequester()
        self.mac = self.devices[0].mac
        self.fake.status.booted(self.mac)

    def now(self, coroutine: Any) -> Any:
        """Return what a coroutine gives at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def leave(self) -> Outcome:
        """Reboot all nodes: one does not answer."""
        return self.now(self.fake.nodes.reboot(
            "all-nodes", self.requester, hard_only=False, cause="acquire", client_reboots=True
        ))

    def tell(self, outcome: Outcome, method: str = "ipmi") -> bool:
        """Say what the client did."""
        return self.fake.nodes.rebooted_by_client(
            outcome, self.requester, method=method, cause="acquire"
        )

    def test_left_to_the_client(self) -> None:
        """Power is left alone; the client's success is logged and reported by its name."""
        outcome = self.leave()
        self.assertEqual(outcome.left_rows(), [
            {"name": "node-2", "mac": self.mac, "reason": "Connection timed out"},
        ])
        self.assertEqual((self.fake.power.events, self.requester.err), ([], []))
        self.assertTrue(self.fake.status.is_booted(self.mac))
        self.assertTrue(self.tell(Outcome({self.mac})))
        self.assertFalse(self.fake.status.is_booted(self.mac))
        self.assertEqual(
            self.now(self.fake.lines("nodes"))[-1],
            "node node-2 is down (cause: acquire, method: ipmi)",
        )
        self.assertEqual(self.requester.out[-1], "Node node-2: rebooted ok.")

    def test_failure(self) -> None:
        """Both reasons, and the node keeps its state."""
        self.leave()
        outcome = Outcome(set(), {self.mac: "Connection timed out"}, {self.mac: "no such BMC"})
        self.assertFalse(self.tell(outcome))
        self.assertEqual(self.requester.err, [
            "Node node-2: failed soft-reboot (connection timed out) and ipmi (no such BMC)",
        ])
        self.assertTrue(self.fake.status.is_booted(self.mac))

    def test_up_again_before_the_client_tells(self) -> None:
        """A slow hook does not make a node that booted meanwhile look down."""
        self.leave()
        self.fake.status.booted(self.mac)
        self.assertTrue(self.tell(Outcome({self.mac})))
        self.assertTrue(self.fake.status.is_booted(self.mac))

    def test_power_that_the_server_cut(self) -> None:
        """A node that the server switched off is switched on by it, whoever asks."""
        self.fake.power.reasons[self.mac] = "powersave"
        done = Deferred.fromCoroutine(self.fake.nodes.reboot(
            "all-nodes", self.requester, hard_only=False, cause="acquire", client_reboots=True
        ))
        self.fake.clock.advance(2)
        self.assertEqual(self.successResultOf(done).left, {})
        self.assertEqual(self.fake.power.events, ["on 02"])

    def test_hostile_values(self) -> None:
        """What is no MAC of a node, and names that would forge log lines, are refused."""
        for mac in ("02:00:00:00:ff:01", "02:00:00:00:00:99", "", "x" * 4000):
            self.assertRaises(Invalid, self.tell, Outcome({mac}))
            self.assertRaises(Invalid, self.tell, Outcome(set(), {}, {mac: "x"}))
        for method in ("", "-x", "a\nnode b is booted", "a)b"):
            self.assertRaises(Invalid, self.tell, Outcome({self.mac}), method)
        self.assertTrue(self.fake.status.is_booted(self.mac))
