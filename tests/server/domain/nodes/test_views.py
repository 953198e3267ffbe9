"""Rows of nodes that are kept are those that would be made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import FakePower, FakeProvisioning
from tests.server.streams.platform import Platform
from walt.server.domain.devices.model import Device
from walt.server.domain.nodes.progress import BootProgress
from walt.server.domain.nodes.reservations import SILENCE, Reservations
from walt.server.domain.nodes.views import AT_ONCE, COLUMNS, NodeViews

NODES = [
    Device(
        f"02:00:00:00:01:0{number}", f"row{number}", "node", f"192.168.1.10{number}",
        model="pc-x86-64", image=f"{user}/img:latest",
    ) for number, user in enumerate(["alice", "bob", "waltplatform"])
]
MANY = [
    replace(NODES[0], mac=f"02:00:00:00:02:{number:02x}", name=f"many{number}",
            ip=f"192.168.1.{number + 20}") for number in range(40)
]
STEPS = (
    "forget", "rename", "given", "setting", "booted", "down", "off", "on", "broken", "whole",
    "reserved", "later", "begun",
)


class Turns(Clock):
    """A clock on which what is for the next turn is not done in this one: each takes a second."""

    def callLater(self, delay: float, *args: Any, **options: Any) -> IDelayedCall:
        """Do something later."""
        return super().callLater(max(delay, 1.0), *args, **options)

    def until(self, work: Deferred[Any]) -> None:
        """Go on until something is over."""
        while not work.called:
            self.advance(1)


class Lab:
    """A platform, its views, and what may happen to its nodes."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self.platform, self.at_once = Platform(), at_once
        self.power, self.provisioning = FakePower(), FakeProvisioning()
        self.clock = Clock()
        self.reservations = Reservations(self.clock)
        registry = self.platform.registry
        self.progress = BootProgress(
            self.clock, registry, Boots(), self.platform.status.is_booted,  # type: ignore[arg-type]
            lambda image: None,
        )
        self.views = self.another()

    def another(
        self, clock: Clock | None = None,
        emulated: Callable[[Device], bool] = lambda device: False, **limits: int,
    ) -> NodeViews:
        """Return views that have kept nothing."""
        return NodeViews(
            self.platform.registry, self.platform.status, self.power, self.provisioning,
            self.progress, self.reservations, emulated, clock or self.clock,
            at_once=self.at_once, **limits,
        )

    def do(self, step: str, number: int) -> None:
        """Have something happen to a node."""
        registry, mac = self.platform.registry, NODES[number].mac
        node = registry.get(mac)
        if node is None:
            Deferred.fromCoroutine(registry.put(NODES[number]))
        elif step == "forget":
            Deferred.fromCoroutine(registry.forget(node))
            self.platform.status.forget(mac)
        elif step == "rename":
            Deferred.fromCoroutine(registry.put(replace(node, name=f"{node.name[:20]}x")))
        elif step == "given":
            Deferred.fromCoroutine(registry.put(replace(node, image="alice/other:latest")))
        elif step == "setting":
            Deferred.fromCoroutine(registry.put(replace(node, conf={"netsetup": 1})))
        elif step == "booted":
            self.platform.status.booted(mac)
        elif step == "down":
            self.platform.status.down(mac, "?")
        elif step == "off":
            self.power.reasons[mac] = "powersave"
        elif step == "on":
            self.power.reasons.pop(mac, None)
        elif step == "broken":
            self.provisioning.troubles[mac] = "no"
        elif step == "whole":
            self.provisioning.troubles.pop(mac, None)
        elif step == "reserved" and self.reservations.get(mac) is None:
            self.reservations.take([replace(node, image="alice/img:latest")], "*", 1, 100.0,
                                   user="alice", holder="script")
        elif step == "later":
            self.clock.advance(SILENCE)
        elif step == "begun":
            self.progress.started(node)


class Boots:
    """Keeps no record."""

    async def save_boots(self, boots: Any) -> None:
        """Take records."""


class RowsTests(SynchronousTestCase):
    def rows(self, lab: Lab, views: NodeViews, *, brief: bool, show_all: bool) -> Any:
        """Return the tables."""
        ask = views.listed if brief else views.tables
        work = Deferred.fromCoroutine(ask("alice", show_all=show_all))
        while not work.called:
            lab.clock.advance(0)
        return json.loads(b"".join(self.successResultOf(work)))

    @given(st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.booleans(), st.booleans()),
        max_size=15,
    ))
    def test_after_any_changes(self, steps: list[tuple[str, int, bool, bool]]) -> None:
        """Each step changes what is shown as a look at everything would show it."""
        lab = Lab()
        for step, number, brief, show_all in steps:
            lab.do(step, number)
            self.assertEqual(
                self.rows(lab, lab.views, brief=brief, show_all=show_all),
                self.rows(lab, lab.another(), brief=brief, show_all=show_all), step,
            )

    def test_many(self) -> None:
        """Rows are made in several turns, in which nodes may come, go and change."""
        lab = Lab(at_once=1)
        for number in range(3):
            lab.do("put", number)
        work = Deferred.fromCoroutine(lab.views.tables("alice", show_all=True))
        self.assertNoResult(work)
        lab.do("forget", 0)
        lab.do("rename", 1)
        while not work.called:
            lab.clock.advance(0)
        shown = self.rows(lab, lab.views, brief=False, show_all=True)
        self.assertEqual(shown, self.rows(lab, lab.another(), brief=False, show_all=True))

    def test_both_kinds_at_once(self) -> None:
        """Whole rows are whole, whoever asked for brief ones while they were made."""
        for renamed in range(3):
            lab = Lab(at_once=1)
            for number in range(3):
                lab.do("put", number)
            whole = Deferred.fromCoroutine(lab.views.tables("alice", show_all=True))
            lab.clock.advance(0)
            lab.do("rename", renamed)
            brief = Deferred.fromCoroutine(lab.views.listed("alice", show_all=True))
            while not whole.called or not brief.called:
                lab.clock.advance(0)
            for work in (whole, brief):
                shown = json.loads(b"".join(self.successResultOf(work)))
                rows = [row for kind in ("own", "free", "others") for row in shown[kind]]
                self.assertEqual(len(rows), shown["total"])
                for row in rows:
                    if work is whole:
                        self.assertEqual(row.keys() & {"mac", "config"}, {"mac", "config"})
                    else:
                        self.assertEqual(len(row), len(COLUMNS))

    def test_a_mark_of_one_look(self) -> None:
        """What one of two looks at once has found is looked at again, whichever ends last."""
        lab, turns = Lab(at_once=4), Turns()
        views = lab.another(turns)
        Deferred.fromCoroutine(lab.platform.registry.put(*NODES, *MANY))
        for brief in (True, False):
            ask = views.listed if brief else views.tables
            look = Deferred.fromCoroutine(ask("alice", show_all=True))
            if brief:
                turns.until(look)
        lab.do("off", 0)
        lab.do("broken", 1)
        turns.until(Deferred.fromCoroutine(views.listed("alice", show_all=True)))
        self.assertNoResult(look)
        turns.until(look)
        lab.do("on", 0)
        lab.do("whole", 1)
        again = Deferred.fromCoroutine(views.listed("alice", show_all=True))
        turns.until(again)
        self.assertEqual(
            json.loads(b"".join(self.successResultOf(again))),
            self.rows(lab, lab.another(), brief=True, show_all=True),
        )

    def test_nothing_is_made_of_those_that_are_not_asked_for(self) -> None:
        """Whole rows, and rows of nodes that boot and tell when they go on."""
        lab, made = Lab(), list[str]()
        views = lab.another(emulated=lambda device: bool(made.append(device.mac)))
        Deferred.fromCoroutine(lab.platform.registry.put(*MANY))
        lab.progress.started(MANY[0])
        whole = self.successResultOf(Deferred.fromCoroutine(views.written(MANY[:1])))
        self.assertEqual((whole[0], made), (1, [MANY[0].mac]))
        self.successResultOf(Deferred.fromCoroutine(views.rows()))
        looked_at: list[str] = []
        renew = views._renew
        self.patch(views, "_renew", lambda mac, troubles, *, brief: (
            looked_at.append(mac), renew(mac, troubles, brief=brief)
        ))
        self.successResultOf(Deferred.fromCoroutine(views.rows()))
        self.assertEqual(looked_at, [])
        lab.progress.forget(MANY[0].mac)
        self.successResultOf(Deferred.fromCoroutine(views.rows()))
        self.assertEqual(looked_at, [MANY[0].mac])

    def test_written_in_turns(self) -> None:
        """Rows that are there already are written some in each turn."""
        lab, turns = Lab(), Turns()
        views = lab.another(turns, written_at_once=2)
        Deferred.fromCoroutine(lab.platform.registry.put(*MANY))
        turns.until(Deferred.fromCoroutine(views.written(MANY)))
        work = Deferred.fromCoroutine(views.written(MANY[:3]))
        self.assertNoResult(work)
        turns.until(work)
        number, written = self.successResultOf(work)
        rows = json.loads(b"[" + written + b"]")
        self.assertEqual((number, [row["mac"] for row in rows]), (3, [n.mac for n in MANY[:3]]))

    def test_made_whole_in_turns(self) -> None:
        """However many rows others made anew meanwhile, whole ones are made in several turns."""
        lab, turns, made = Lab(at_once=2), Turns(), list[str]()
        views = lab.another(turns, lambda device: bool(made.append(device.mac)))
        registry = lab.platform.registry
        Deferred.fromCoroutine(registry.put(*MANY))
        turns.until(Deferred.fromCoroutine(views.rows()))
        whole = Deferred.fromCoroutine(views.tables("alice", show_all=True))
        turns.pump([1] * 10)
        Deferred.fromCoroutine(registry.put(*(replace(node, model="rpi-b") for node in MANY)))
        brief = Deferred.fromCoroutine(views.rows())
        while not whole.called or not brief.called:
            before = len(made)
            turns.advance(1)
            self.assertLessEqual(len(made) - before, 4)
        shown = json.loads(b"".join(self.successResultOf(whole)))
        self.assertEqual([row.keys() & {"config"} for row in shown["own"]], [{"config"}] * 41)
