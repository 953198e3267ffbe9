"""What changed: the differences of devices and of cables, and whose call it was."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.devices import FakeDeviceStore
from tests.server.domain.devices.test_registry import SUBNET
from walt.common.errors import Invalid, Unavailable
from walt.server.domain.devices.changes import (
    LONGEST,
    MASKED,
    Cable,
    Change,
    Fact,
    facts,
    moment,
    of_device,
    of_links,
    told,
)
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.requester import acting

MAC = "02:00:00:00:00:01"
NODE = Device(MAC, "n1", "node", conf={"ram": "1G"}, model="pc", image="ann/img:latest")

SETTINGS = st.dictionaries(
    st.sampled_from(["ram", "cpu.cores", "snmp.auth", "snmp.community"]),
    st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["secret-1", "secret-2"])),
)
DEVICES = st.one_of(st.none(), st.builds(
    Device, st.just(MAC), st.sampled_from(["a", "b"]),
    st.sampled_from(["node", "switch", "unknown", "server"]),
    ip=st.sampled_from([None, "192.168.1.7"]), conf=SETTINGS,
    model=st.sampled_from([None, "pc", "rpi"]),
    image=st.sampled_from([None, "ann/img:latest", "waltplatform/pc-default:latest"]),
))
# What an edge should refuse is here as well: long texts, no texts of a database.
TEXTS = st.one_of(
    st.text(st.characters(), max_size=5), st.just("a" * 2000), st.just("a" * 1999 + "b"),
    st.text(max_size=3).map(lambda text: "\0\ud800" + text),
    st.sampled_from(["a" * 2000, "a\0", "a\ud800"]).map(told),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)
STRANGE = st.one_of(st.none(), st.builds(
    Device, st.just(MAC), TEXTS, st.sampled_from(["node", "switch", "server"]),
    conf=st.dictionaries(st.one_of(st.just("expose"), TEXTS), VALUES, max_size=3),
    model=st.one_of(st.none(), TEXTS), image=st.one_of(st.none(), TEXTS),
))
MACS = st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"])
PORTS = st.one_of(st.none(), st.integers(1, 3))
CABLES: st.SearchStrategy[set[Cable]] = st.sets(
    st.tuples(MACS, PORTS, MACS, PORTS).filter(lambda one: one[0] < one[2]), max_size=6
)


class ChangesTests(SynchronousTestCase):
    @given(DEVICES, DEVICES)
    def test_devices(self, before: Device | None, after: Device | None) -> None:
        """The changes lead from what was to what is; nothing secret is in them."""
        old, new = facts(before), facts(after)
        found: dict[Fact, Change] = {}
        for one in of_device(MAC, before, after, "ann"):
            self.assertNotIn((one.kind, one.item), found)
            found[one.kind, one.item] = one
            self.assertEqual((one.mac, one.who), (MAC, "ann"))
        for fact in old.keys() | new.keys():
            if old.get(fact) == new.get(fact):
                self.assertNotIn(fact, found)
                continue
            one = found.pop(fact)
            self.assertEqual((one.before is None, one.after is None),
                             (fact not in old, fact not in new))
            if fact[1] in MASKED:
                self.assertNotIn("secret", f"{one.before}{one.after}")
            else:
                self.assertEqual((one.before, one.after), (old.get(fact), new.get(fact)))
        self.assertEqual(found, {})

    @given(STRANGE, STRANGE)
    def test_strange_devices(self, before: Device | None, after: Device | None) -> None:
        """Whatever they have, what is recorded differs, is short, and is text of a database."""
        for one in of_device(MAC, before, after, "ann"):
            self.assertTrue(one.before != one.after or one.item in MASKED, one)
            for text in (one.item, one.before or "", one.after or ""):
                self.assertLessEqual(len(text), LONGEST)
                self.assertNotIn("\0", text)
                text.encode()

    @given(TEXTS, TEXTS)
    def test_cut_texts_differ(self, one: str, other: str) -> None:
        """Two texts that differ are told by two texts."""
        if len(one) <= LONGEST and one.isascii() and "\0" not in one:
            self.assertEqual(told(one), one)
        if one != other:
            self.assertNotEqual(told(one), told(other))

    @given(CABLES, CABLES)
    def test_cables(self, before: set[Cable], after: set[Cable]) -> None:
        """Each cable that came or went is told once."""
        told = [
            (one.mac, one.item, text, way) for one in of_links(before, after, None)
            for way, text in (("gone", one.before), ("new", one.after)) if text is not None
        ]

        def named(cable: Cable, way: str) -> tuple[str, str, str, str]:
            first, port, second, far = cable
            return first, second, f"{port or '?'} - {far or '?'}", way

        wanted = [named(one, "gone") for one in before - after]
        wanted += [named(one, "new") for one in after - before]
        self.assertEqual(sorted(told), sorted(wanted))

    def test_moments(self) -> None:
        """Those that are no time are refused."""
        self.assertEqual(moment(0.0), 0.0)
        for wrong in (-1.0, float("nan"), float("inf"), 1e300):
            self.assertRaises(Invalid, moment, wrong)

    def test_registry(self) -> None:
        """Each change is recorded with its device, by whom; a lost database loses none."""
        store = FakeDeviceStore()
        registry = DeviceRegistry(store, SUBNET)
        acting.set("ann")
        self.successResultOf(Deferred.fromCoroutine(registry.put(NODE)))
        self.assertEqual(store.changes, list(of_device(MAC, None, NODE, "ann")))
        gate: Deferred[None] = Deferred()
        store.gate = gate
        store.errors = [Unavailable("lost")]
        acting.set("bob")
        renamed = replace(NODE, name="n2")
        first = Deferred.fromCoroutine(registry.put(renamed))
        acting.set(None)
        again = replace(renamed, name="n3")
        second = Deferred.fromCoroutine(registry.put(again))
        gate.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(store.changes[-2:], [
            Change("name", MAC, "", "n1", "n2", "bob"), Change("name", MAC, "", "n2", "n3"),
        ])
        self.successResultOf(Deferred.fromCoroutine(registry.forget(again)))
        gone = list(of_device(MAC, again, None, None))
        self.assertEqual(store.changes[-len(gone):], gone)
        self.assertEqual({one.after for one in gone}, {None})
