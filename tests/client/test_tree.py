"""How `walt device tree` is drawn."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from walt.client.commands.switches import Strokes, ago, drawn, notes


def branch(depth: int, name: str, port: str | None = "g1", **values: Any) -> dict[str, Any]:
    """Return a branch as the server tells it."""
    return {
        "depth": depth, "name": name, "kind": "node", "port": port, "far_port": None,
        "evidence": "bridge", "confirmed": True, "seen": 0.0, "cables": [], "poe": None,
        "poe_reason": None, "explorable": True, **values,
    }


BRANCHES = [
    branch(0, "sw-a", kind="switch", evidence="lldp-both", far_port="g9"),
    branch(1, "n1", "g2", poe="off", poe_reason="powersave"),
    branch(1, "n2", None, confirmed=False),
    branch(0, "sw-b", "g3", kind="switch", evidence="lldp"),
    branch(1, "sw-b", kind="hidden"),
    branch(0, "odd", "g4", kind="unknown", evidence="report"),
    branch(0, "sw-a", "g5", kind="back", evidence="lldp"),
]


class TreeTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """Boxes, or plain characters where the output has no boxes."""
        lines = drawn("root", BRANCHES, Strokes("utf-8"))
        self.assertRegex(lines.pop(3), r"^│    └─\?: \(n2\)  \[bridge table; last seen .+\]$")
        self.assertEqual(lines, [
            "-- root --",
            "├─g1: -- sw-a --  [LLDP at both ends; its port g9]",
            "│    ├─g2: n1  [bridge table; PoE off (powersave)]",
            "├─g3: -- sw-b --  [LLDP at one end]",
            "│    └─[...] ~> no node here",
            "├─g4: <? odd ?>  [the node says so]",
            "└─g5: ~> back to sw-a  [LLDP at one end]",
        ])
        for encoding in ("ascii", "no-such-encoding", None):
            text = "\n".join(drawn("root", BRANCHES, Strokes(encoding)))
            self.assertTrue(text.isascii(), encoding)
            self.assertIn("\n|    `-[...]", text)

    def test_forbidden(self) -> None:
        """A switch that may not be explored says so."""
        hidden = branch(0, "sw", kind="hidden", explorable=False)
        self.assertIn("is forbidden", drawn("root", [hidden], Strokes("utf-8"))[1])

    def test_notes(self) -> None:
        """What marks mean, for those that are there."""
        self.assertEqual(len(notes(BRANCHES, 7300.0, False)), 5)
        self.assertIn("2 hours ago", notes([], 7300.0, True)[0])
        self.assertEqual(notes([], None, True), [])
        self.assertEqual(
            [ago(one) for one in (5, 60, 3599, 90000, 200000)],
            ["less than a minute", "1 minute", "59 minutes", "1 day", "2 days"],
        )
