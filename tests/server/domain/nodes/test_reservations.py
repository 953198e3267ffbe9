"""Nodes that scripts take for a while."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import node
from walt.common.errors import Conflict, Invalid, NotFound
from walt.server.domain.devices.model import Device
from walt.server.domain.nodes.reservations import LONGEST, MOST, SILENCE, Reservations

FREE = [node(number) for number in range(2, 6)]
OWN = replace(node(7), image="joe/img:latest")
OF_ANN = replace(node(8), image="ann/img:latest")
ALL = [*FREE, OWN, OF_ANN]


class Compared(Device):
    """A device that counts how often it is compared with another one."""

    __slots__ = ()
    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return self is other

    __hash__ = Device.__hash__


class ReservationsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.all = Reservations(self.clock)

    def take(
        self, count: int, holder: str = "h", user: str = "joe", seconds: float = 600.0,
        model: str = "*",
    ) -> list[Device]:
        """Reserve some of ALL."""
        return self.all.take(ALL, model, count, seconds, user=user, holder=holder)

    def test_whose_are_taken(self) -> None:
        """Own ones first, then free ones, never those of others; no node twice."""
        self.assertEqual(self.take(2), [OWN, FREE[0]])
        self.assertEqual(self.take(2, "other"), FREE[1:3])
        self.assertEqual(self.take(2, "h", "ann"), [OF_ANN, FREE[3]])
        error = self.assertRaises(Conflict, self.take, 1, "third")
        self.assertIn("is reserved by ann", str(error))

    def test_too_many(self) -> None:
        """Who wants more than there are is told why, and the others do not wait for that."""
        nodes = [
            Compared(f"02:00:00:00:0d:{number:02x}", f"many{number}", "node", None, model="pc",
                     image=f"{'waltplatform' if number < 50 else 'ann'}/img:latest")
            for number in range(100)
        ]
        error = self.assertRaises(
            Conflict, self.all.take, nodes, "*", 51, 600.0, user="joe", holder="h"
        )
        self.assertIn("and 50 can be had now: many50 belongs to ann, many51 ", str(error))
        self.assertTrue(str(error).endswith("many59 belongs to ann and 40 more"))
        self.assertLess(Compared.times, 1000)

    def test_more_of_the_same_holder(self) -> None:
        """What it has is part of what it asks for; a repeated call changes nothing."""
        self.assertEqual(self.take(1), [OWN])
        self.assertEqual(self.take(1), [OWN])
        self.clock.advance(10)
        self.assertEqual(self.take(3), [OWN, *FREE[:2]])
        self.assertEqual(self.all.get(OWN.mac).until, 600.0)  # type: ignore[union-attr]

    def test_ends(self) -> None:
        """By the holder, by its silence, by the time that was asked for, with the node."""
        self.take(1)
        self.all.free("ann", "h")
        self.assertIsNotNone(self.all.get(OWN.mac))
        self.all.free("joe", "h")
        self.assertIsNone(self.all.get(OWN.mac))
        self.take(1)
        self.clock.advance(SILENCE)
        self.assertIsNone(self.all.get(OWN.mac))
        self.assertRaises(NotFound, self.all.heard, "joe", "h")
        self.take(1, seconds=100)
        for _ in range(10):
            self.clock.advance(9.9)
            self.all.heard("joe", "h")
        self.clock.advance(1)
        self.assertIsNone(self.all.get(OWN.mac))
        self.take(1)
        self.all.forget(OWN.mac)
        self.assertIsNone(self.all.get(OWN.mac))

    def test_models(self) -> None:
        """Patterns; there must be so many nodes of it."""
        self.assertEqual(len(self.take(1, model="pc-*")), 1)
        for model in ("rpi-*", "PC-*", "*\0", "[", "*a" * 100):
            self.assertRaises(NotFound, self.take, 1, model=model)
        self.assertRaises(NotFound, self.take, 7)

    def test_limits(self) -> None:
        """Numbers and times."""
        for count in (0, -1, MOST + 1):
            self.assertRaises(Invalid, self.take, count)
        for seconds in (0.0, -5.0, LONGEST + 1):
            self.assertRaises(Invalid, self.take, 1, seconds=seconds)

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("take", "free", "wait")))))
    def test_no_node_has_two_holders(self, deeds: list[tuple[str, str]]) -> None:
        """Whatever happens."""
        clock = Clock()
        everything, held = Reservations(clock), dict[str, set[str]]()
        for holder, deed in deeds:
            if deed == "take":
                try:
                    taken = everything.take(ALL, "*", 2, 600, user="joe", holder=holder)
                except Conflict:
                    continue
                held[holder] = {one.mac for one in taken}
            elif deed == "free":
                everything.free("joe", holder)
                held.pop(holder, None)
            else:
                clock.advance(SILENCE)
                held.clear()
            macs = [mac for one in held.values() for mac in one]
            self.assertEqual(len(macs), len(set(macs)))
