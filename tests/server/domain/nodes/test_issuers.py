"""Names of issuers of log lines, those of devices that are gone too."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.server.streams.platform import NODE, SERVER, SWITCH, Platform
from walt.common.errors import Invalid, NotFound


class LogIssuersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()

    def issuers(self, names: str) -> set[str]:
        """Return the issuers of a set."""
        return set(self.platform.issuers.query({"issuers": names}, "alice").issuers or ())

    def test_present_devices(self) -> None:
        """Nodes and the server; other devices and unknown names are refused."""
        self.assertEqual(self.issuers("my-nodes,server"), {NODE.mac, SERVER.mac})
        self.assertRaises(Invalid, self.issuers, SWITCH.name)
        for names in ("ghost", "node-1,ghost", ""):
            self.assertRaises(NotFound, self.issuers, names)

    def test_kept_logs(self) -> None:
        """A device whose logs were kept is still named; a new one of its name joins it."""
        logs, registry = self.platform.logs, self.platform.registry
        self.successResultOf(Deferred.fromCoroutine(registry.forget(NODE, keep_logs=True)))
        logs.forget(NODE.mac, NODE.name)
        self.assertEqual(self.issuers("node-1"), {"node-1"})
        self.assertEqual(self.issuers("node-1,server"), {"node-1", SERVER.mac})
        self.assertRaises(NotFound, self.issuers, "node-1,ghost")
        query = self.platform.issuers.query({"issuers": "server,node-1"}, "alice")
        self.assertEqual(self.platform.issuers.names(query), ["node-1", "walt-server"])
        self.successResultOf(Deferred.fromCoroutine(registry.put(NODE)))
        for names in ("node-1", "all-nodes"):
            self.assertEqual(self.issuers(names), {"node-1", NODE.mac})
            query = self.platform.issuers.query({"issuers": names}, "alice")
            self.assertEqual(self.platform.issuers.names(query), ["node-1"])
        # A switch of that name sends no lines: those of the former node are meant.
        logs.forget("02:00:00:00:00:77", SWITCH.name)
        self.assertEqual(self.issuers(SWITCH.name), {SWITCH.name})
        self.successResultOf(Deferred.fromCoroutine(logs.forget_former("node-1")))
        self.assertEqual(self.issuers("node-1"), {NODE.mac})
