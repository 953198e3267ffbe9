"""Links found by their devices, and what of them is written."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, node, stored
from tests.fakes.switch_store import FakeSwitchStore
from tests.server.domain.switches.test_exploration import SlowSwitches
from tests.server.domain.switches.test_power import SWITCH
from walt.common.errors import Unavailable
from walt.server.domain.switches.exploration import Exploration
from walt.server.domain.switches.known_links import KnownLinks
from walt.server.domain.switches.topology import LLDP, REPORT, Link

MACS = [f"02:00:00:00:00:{number:02x}" for number in range(4)]
LINKS = st.builds(
    Link.of, st.tuples(st.sampled_from(MACS[:2]), st.none() | st.integers(1, 2)),
    st.tuples(st.sampled_from(MACS[2:]), st.none() | st.integers(1, 2)),
    st.sampled_from([LLDP, REPORT]), st.sampled_from([1.0, 2.0]), st.booleans(),
)


class KnownLinksTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.sets(LINKS), st.sets(LINKS))))
    def test_after_any_changes(self, steps: list[tuple[set[Link], set[Link]]]) -> None:
        """What is found by a device or a port is what a look at all links finds."""
        known, every = KnownLinks(), set[Link]()
        for gone, added in steps:
            known.change(gone, added)
            every = (every - gone) | added
            self.assertEqual(sorted(known, key=repr), sorted(every, key=repr))
            self.assertEqual(bool(known), bool(every))
            self.assertEqual(set(known.devices()), {mac for link in every for mac in link.macs})
            for mac in MACS:
                found = known.of(mac)
                self.assertEqual(set(found), {link for link in every if mac in link.macs})
                ranks = [link.rank for link in found]
                self.assertEqual(ranks, sorted(ranks, reverse=True))
                for port in (None, 1, 2):
                    self.assertEqual(
                        set(known.at((mac, port))),
                        {link for link in every if (mac, port) in link.ends},
                    )


class WritingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = FakePlatform(stored(DEFAULT))
        self.done(self.fake.start())
        self.nodes = [node(number) for number in range(2, 40)]
        self.done(self.fake.registry.put(SWITCH, *self.nodes))
        self.store = FakeSwitchStore()
        self.exploration = Exploration(
            self.fake.registry, SlowSwitches(), self.store, self.fake.platform, lambda: 1e9,
            lambda mac, ip, name: Deferred(),
        )
        self.done(self.exploration.load())
        for port, one in enumerate(self.nodes, 1):
            self.done(self.exploration.locate(one.mac, SWITCH.mac, port))

    def done(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of what does not wait."""
        return self.successResultOf(Deferred.fromCoroutine(work))

    def test_of_one_node(self) -> None:
        """A place that is new is written, not all of them; who is gone has none."""
        self.assertEqual({(len(gone or ()), len(new)) for gone, new in self.store.saved}, {(0, 1)})
        first = self.nodes[0]
        self.done(self.exploration.locate(first.mac, SWITCH.mac, 99))
        gone, added = self.store.saved[-1]
        self.assertEqual([link.other(first.mac)[1] for link in (*(gone or ()), *added)], [1, 99])
        self.assertEqual(set(self.exploration.links), set(self.store.links))
        self.done(self.fake.registry.forget(first))
        self.assertIsNone(self.exploration.place(first.mac))
        self.assertEqual(len(list(self.exploration.links)), len(self.nodes) - 1)

    def test_nobody_heard_of_the_end(self) -> None:
        """Whether something was written is not known: the next time all is, once."""
        first, second, *_ = self.nodes
        self.store.errors = [Unavailable("lost")]
        self.failureResultOf(Deferred.fromCoroutine(
            self.exploration.locate(first.mac, SWITCH.mac, 98)
        ), Unavailable)
        for port in (98, 99):
            self.done(self.exploration.locate(second.mac, SWITCH.mac, port))
            self.assertEqual(set(self.exploration.links), set(self.store.links))
        whole, part = self.store.saved[-2:]
        self.assertEqual((whole[0], len(whole[1])), (None, len(self.nodes)))
        self.assertEqual((len(part[0] or ()), len(part[1])), (1, 1))
