"""Runs that clients tell of: bounded, forgotten, and nothing private."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid, LimitExceeded
from walt.server.domain.nodes.experiments import (
    KEPT,
    SILENCE,
    Limits,
    Report,
    RunningExperiments,
)

ONE = Report("0" * 12, "delays", "running", ["n2", "n1"], 5.0, 3, 12, 1, 2)


class RunningExperimentsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.bound(Limits())
        self.changes = 0
        self.experiments.changed.observe(self.change)

    def bound(self, limits: Limits) -> None:
        """Begin with other limits."""
        self.experiments = RunningExperiments(self.clock, lambda name: name != "nobody", limits)

    def change(self) -> None:
        self.changes += 1

    def test_heard(self) -> None:
        """A client that is silent is told so, and forgotten after an hour."""
        self.experiments.report("ann", ONE)
        self.experiments.report("ann", ONE)
        (row,) = self.experiments.rows()
        self.assertEqual(row, {
            "user": "ann", "run": "0" * 12, "name": "delays", "state": "running",
            "nodes": ["n1", "n2"], "started": 5.0, "last_seen": 1000.0, "online": True,
            "active": True,
            "point": 3, "points": 12, "failed": 1, "failed_point": 2,
        })
        self.assertEqual(self.changes, 1)
        self.clock.advance(SILENCE)
        (row,) = self.experiments.rows()
        self.assertEqual((row["online"], row["active"], row["state"]), (False, False, "running"))
        self.experiments.report("ann", replace(ONE, state="done", point=12))
        self.experiments.report("bob", replace(ONE, began=2e9))  # the clock of its machine is wrong
        self.assertEqual([(row["user"], row["active"], row["started"])
                          for row in self.experiments.rows()],
                         [("bob", True, 1060.0), ("ann", False, 5.0)])
        self.clock.advance(KEPT + 1)
        self.assertEqual(self.experiments.rows(), [])

    def test_bounds(self) -> None:
        """What is over goes first; what goes on is not pushed out by more."""
        self.bound(Limits(runs=4, of_user=2))
        for number in range(5):
            state = "running" if number == 0 else "done"
            self.experiments.report("ann", replace(ONE, run=f"{number:012}", state=state))
        self.assertEqual({row["run"][-1] for row in self.experiments.rows()}, {"0", "4"})
        self.experiments.report("ann", replace(ONE, run=f"{4:012}"))
        self.assertRaises(
            LimitExceeded, self.experiments.report, "ann", replace(ONE, run=f"{5:012}")
        )
        for user in ("bob", "eve"):
            self.experiments.report(user, ONE)
        self.assertRaises(LimitExceeded, self.experiments.report, "zoe", ONE)
        self.clock.advance(SILENCE)
        self.experiments.report("zoe", ONE)
        self.assertEqual(len(self.experiments.rows()), 4)

    def test_nodes(self) -> None:
        """Nodes are those of the platform, each once; there are so many of all runs together."""
        self.bound(Limits(names=5))
        self.experiments.report("ann", replace(ONE, nodes=["n1", "nobody", "n1"]))
        self.assertEqual([row["nodes"] for row in self.experiments.rows()], [["n1"]])
        self.experiments.report("ann", replace(ONE, nodes=["n1", "n2", "n3"]))
        self.experiments.report("bob", replace(ONE, state="done"))
        self.assertRaises(
            LimitExceeded, self.experiments.report, "eve", replace(ONE, nodes=["n4", "n5", "n6"])
        )
        self.experiments.report("eve", ONE)
        self.assertEqual({row["user"] for row in self.experiments.rows()}, {"ann", "eve"})

    def test_what_is_refused(self) -> None:
        """Each value is checked: others see it."""
        for changes in (
            {"run": "x"}, {"run": "A" * 12}, {"name": "<b>"}, {"name": ""}, {"name": "x" * 101},
            {"name": "two\nlines"}, {"state": "\x1b[2J"}, {"state": ""}, {"nodes": ["a b"]},
            {"nodes": ["n"] * 1001}, {"nodes": [""]}, {"point": -1}, {"point": 13},
            {"began": -1.0}, {"began": -1e300}, {"began": 1e300}, {"began": float("nan")},
            {"began": float("-inf")}, {"points": 10_001}, {"points": -1}, {"failed": 13},
            {"failed_point": 13},
        ):
            self.assertRaises(Invalid, replace, ONE, **changes)
