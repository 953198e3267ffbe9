"""Rows of nodes for pages: states, places, and the same text as long as nothing is different."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.server.domain.nodes.test_views import NODES, Lab
from walt.server.domain.nodes import live as live_module
from walt.server.domain.nodes.boots import Stage
from walt.server.domain.nodes.live import LiveNodes


class LiveNodesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lab = Lab()
        self.places: dict[str, Any] = {}
        for number in range(len(NODES)):
            self.lab.do("", number)
        self.live = LiveNodes(
            self.lab.views, lambda: self.places, self.lab.clock, at_once=2,
        )
        self.mac = NODES[0].mac

    def rows(self) -> dict[str, str]:
        """Return the rows."""
        found: list[dict[str, str]] = []
        Deferred.fromCoroutine(self.live.rows()).addCallback(lambda rows: found.append(dict(rows)))
        for _ in range(10):
            self.lab.clock.advance(0)
        return found[0]

    def row(self) -> Any:
        """Return the row of the first node."""
        return json.loads(self.rows()[self.mac])

    def test_states(self) -> None:
        """Off, booting with its stage, failed with its reason, booted."""
        told: list[str] = []
        self.lab.progress.changed.observe(told.append)
        self.assertEqual((self.row()["state"], self.row()["stage"]), ("off", None))
        self.lab.progress.reached(self.mac, Stage.ADDRESS)
        self.assertEqual((self.row()["state"], self.row()["stage"]), ("booting", "DHCP done"))
        self.lab.progress.gave_up(self.mac, "it never came")
        row = self.row()
        self.assertEqual((row["state"], row["failure"], row["stage"]),
                         ("failed", "it never came", None))
        self.lab.progress.gave_up(self.mac, None)
        self.assertEqual(self.row()["state"], "off")
        self.lab.do("booted", 0)
        self.assertEqual((self.row()["state"], self.row()["failure"]), ("booted", None))
        self.assertEqual(set(told), {self.mac})

    def test_places(self) -> None:
        self.assertEqual((self.row()["switch"], self.row()["port"]), (None, None))
        self.places[self.mac] = ("access", "g7")
        self.assertEqual((self.row()["switch"], self.row()["port"]), ("access", "g7"))

    def test_made_of_those_that_changed(self) -> None:
        """Nothing is made of the others."""
        self.rows()
        made: list[str] = []
        text = live_module._text
        self.patch(live_module, "_text", lambda mac, seen: made.append(mac) or text(mac, seen))
        self.rows()
        self.assertEqual(made, [])
        self.lab.progress.started(NODES[0])
        self.lab.do("rename", 1)
        self.rows()
        self.assertEqual(set(made), {NODES[0].mac, NODES[1].mac})
        made.clear()
        for _ in range(2):
            self.lab.clock.advance(live_module.KEPT - 1)
            self.rows()
        self.assertEqual(made, [])
        self.lab.clock.advance(live_module.KEPT)
        self.assertEqual(self.live._rows, {})
        self.assertEqual(self.rows().keys(), set(made))

    def test_same_texts(self) -> None:
        """What did not change is the same object; what is gone has no row."""
        before = self.rows()
        self.lab.do("booted", 1)
        after = self.rows()
        self.assertIs(after[self.mac], before[self.mac])
        self.assertNotEqual(after[NODES[1].mac], before[NODES[1].mac])
        self.lab.do("forget", 2)
        self.assertEqual(self.rows().keys(), {NODES[0].mac, NODES[1].mac, *(
            before.keys() - {one.mac for one in NODES}
        )})
