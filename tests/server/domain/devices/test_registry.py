from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.devices import FakeDeviceStore
from walt.common.errors import Conflict, Invalid, NotFound, Unavailable
from walt.common.names import is_device_name
from walt.server.domain.devices.changes import Change as Fact
from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.naming import (
    RESERVED_NAMES,
    choose_name,
    generated_name,
    guess_type,
)
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.sets import (
    KEYWORDS,
    MAX_ITEMS,
    Ownership,
    parse_devices,
    parse_nodes,
    restricted,
)
from walt.server.domain.requester import acting

SUBNET = IPv4Network("192.168.1.0/24")
DEFAULT = "waltplatform/pc-x86-64-default:latest"


def node(number: int, image: str = DEFAULT, **options: object) -> Device:
    """Return a node."""
    return Device(
        f"02:00:00:00:00:{number:02x}", f"node-{number}", "node", f"192.168.1.{number}",
        model="pc-x86-64", image=image, **options,  # type: ignore[arg-type]
    )


def done(coroutine: object) -> Deferred[None]:
    """Run a coroutine."""
    return Deferred.fromCoroutine(coroutine)  # type: ignore[arg-type]


class RegistryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = FakeDeviceStore()
        self.registry = DeviceRegistry(self.store, SUBNET)

    def put(self, *devices: Device) -> None:
        """Record devices."""
        self.successResultOf(done(self.registry.put(*devices)))

    def test_names_of_older_servers(self) -> None:
        """A name that DNS does not take is replaced, and the others live on."""
        one, two = replace(node(5), name="board-"), replace(node(6), name="board")
        store = FakeDeviceStore(one, two)
        registry = DeviceRegistry(store, SUBNET)
        self.successResultOf(done(registry.load()))
        found = registry.get(one.mac)
        assert found is not None
        self.assertTrue(is_device_name(found.name))
        self.assertEqual(store.devices[one.mac].name, found.name)
        self.assertEqual(registry.named("board"), two)

    def test_load(self) -> None:
        """What the store has is found by MAC, VPN MAC, name and address."""
        one = node(5, vpn_mac="02:aa:00:00:00:01")
        registry = DeviceRegistry(FakeDeviceStore(one), SUBNET)
        self.successResultOf(done(registry.load()))
        for found in (
            registry.get(one.mac), registry.get("02:aa:00:00:00:01"),
            registry.by_name("node-5"), registry.by_ip("192.168.1.5"), registry.named("node-5"),
        ):
            self.assertEqual(found, one)
        self.assertEqual((len(registry), registry.nodes()), (1, [one]))

    def test_unknown_name(self) -> None:
        """An unknown name is an error that says where to look."""
        error = self.assertRaises(NotFound, self.registry.named, "x" * 1000)
        self.assertIn("walt device show", str(error))
        self.assertLess(len(str(error)), 200)

    def test_visible_at_once(self) -> None:
        """A change is seen before the store has it, and its observers are told."""
        seen: list[Sequence[Change]] = []
        self.registry.observe(seen.append)
        self.store.gate = gate = Deferred()
        stored = done(self.registry.put(node(5)))
        self.assertEqual(seen, [[Change(None, node(5))]])
        self.assertIsNotNone(self.registry.by_name("node-5"))
        self.assertNoResult(stored)
        gate.callback(None)
        self.successResultOf(stored)
        self.assertIn(node(5).mac, self.store.devices)

    def test_changes_are_written_together(self) -> None:
        """While the store is busy changes gather, and are written in one go."""
        self.store.gate = gate = Deferred()
        changes = [done(self.registry.put(node(number))) for number in range(2, 50)]
        gate.callback(None)
        for one in changes:
            self.successResultOf(one)
        self.assertEqual([len(write) for write in self.store.writes], [1, 47])

    def test_put_and_forget_together(self) -> None:
        """The last word about a device is what is stored."""
        self.store.gate = gate = Deferred()
        waits = [done(self.registry.put(node(2))), done(self.registry.put(node(3))),
                 done(self.registry.forget(node(3))), done(self.registry.put(node(4)))]
        gate.callback(None)
        for one in waits:
            self.successResultOf(one)
        self.assertEqual(set(self.store.devices), {node(2).mac, node(4).mac})

    @given(st.lists(st.tuples(
        st.sampled_from(["put", "forget"]), st.integers(2, 5), st.sampled_from(["node", "switch"]),
        st.sampled_from(["a/x:latest", "b/y:latest"]), st.sampled_from(["pc", "rpi"]),
        st.sampled_from(["", "-other"]),
    )))
    def test_counts(self, steps: list[tuple[str, int, str, str, str, str]]) -> None:
        """What is counted as devices come, change and go is what one look at all finds."""
        registry = DeviceRegistry(FakeDeviceStore(), SUBNET)
        for step, number, kind, image, model, name in steps:
            device = replace(
                node(number, image), type=kind, model=model, name=f"node-{number}{name}"
            )
            done(registry.put(device) if step == "put" else registry.forget(device))
            nodes = registry.nodes()
            self.assertEqual(set(registry.images()), {one.image for one in nodes})
            self.assertEqual(set(registry.models()), {one.model for one in nodes})
            self.assertEqual(registry.count("node"), len(nodes))
            self.assertEqual(registry.count("switch"), len(registry) - len(nodes))
            for one in registry.all():
                self.assertIs(registry.by_name(one.name), one)
                self.assertIs(registry.by_ip(one.ip or ""), one)

    def test_recorded_once(self) -> None:
        """What is written again, as nobody heard of the first end, is recorded as the same."""
        self.put(node(2))
        save = self.store.save

        async def unheard(devices: Sequence[Device], changes: Iterable[Fact] = ()) -> None:
            self.patch(self.store, "save", save)
            await save(devices, changes)
            raise Unavailable("was it done?")

        self.patch(self.store, "save", unheard)
        before = len(self.store.changes)
        self.put(replace(node(2), image="joe/x:latest"), node(3))
        self.assertEqual(
            [(one.kind, one.after) for one in self.store.changes[before:]],
            [("image", "joe/x:latest"), ("owner", "joe"), ("device", "node"), ("image", DEFAULT),
             ("model", "pc-x86-64"), ("name", "node-3")],
        )
        self.assertEqual(len(self.store.writes), 3)

    def test_lost_database(self) -> None:
        """A database that is away is waited for; nothing is lost."""
        self.store.errors = [Unavailable("gone"), Unavailable("still gone")]
        self.put(node(2))
        self.assertIn(node(2).mac, self.store.devices)

    def test_refused_by_the_store(self) -> None:
        """Another failure reaches who asked, and the next change is written."""
        self.store.errors = [ValueError("refused")]
        self.failureResultOf(done(self.registry.put(node(2))), ValueError)
        self.put(node(3))
        self.assertIn(node(3).mac, self.store.devices)

    def test_refused_alone(self) -> None:
        """What the store refuses of one is the failure of that one: others lose nothing."""
        refused = node(7).mac
        self.store.refuses = lambda devices, changes: any(one.mac == refused for one in devices)
        self.store.gate = gate = Deferred()
        waits = {number: done(self.registry.put(node(number))) for number in range(2, 20)}
        gone = done(self.registry.forget(node(3)))
        gate.callback(None)
        self.failureResultOf(waits.pop(7), ValueError)
        for one in (*waits.values(), gone):
            self.successResultOf(one)
        self.assertEqual(
            set(self.store.devices), {node(number).mac for number in waits if number != 3}
        )
        told = [one.mac for one in self.store.changes if one.kind == "device" and one.after]
        self.assertEqual(sorted(told), sorted(node(number).mac for number in waits))

    def test_refused_record(self) -> None:
        """A record that the store refuses takes nothing of others with it, in their order."""
        self.store.refuses = lambda devices, changes: any(one.who == "eve" for one in changes)
        self.put(node(2))
        self.store.gate = gate = Deferred()
        first = done(self.registry.put(node(3)))
        acting.set("eve")
        refused = done(self.registry.put(node(2, conf={"ram": "1G"})))
        acting.set(None)
        later = done(self.registry.put(node(2, conf={"ram": "2G"})))
        gate.callback(None)
        self.failureResultOf(refused, ValueError)
        self.successResultOf(first)
        self.successResultOf(later)
        self.assertEqual(self.store.devices[node(2).mac].conf, {"ram": "2G"})
        self.assertIn(node(3).mac, self.store.devices)

    def test_too_many_wait(self) -> None:
        """Not everything waits for a database that is away; then room is there again."""
        self.registry = DeviceRegistry(self.store, SUBNET, most_waiting=2)
        self.store.gate = gate = Deferred()
        waits = [done(self.registry.put(node(2))), done(self.registry.put(node(3)))]
        for change in (self.registry.put(node(4)), self.registry.forget(node(2))):
            error = self.failureResultOf(done(change), Unavailable)
            self.assertIn("try again later", str(error.value))
        self.assertIsNone(self.registry.get(node(4).mac))
        self.assertIsNotNone(self.registry.get(node(2).mac))
        gate.callback(None)
        for one in waits:
            self.successResultOf(one)
        self.put(node(4))

    def test_unique(self) -> None:
        """Names and addresses belong to one device; a device keeps its own."""
        self.put(node(2))
        same_name = replace(node(3), name="node-2")
        self.failureResultOf(done(self.registry.put(same_name)), Conflict)
        same_ip = replace(node(3), ip="192.168.1.2")
        self.failureResultOf(done(self.registry.put(same_ip)), Conflict)
        self.put(replace(node(2), image="joe/x:latest"))
        self.assertEqual(len(self.registry), 1)

    def test_rename(self) -> None:
        """The old name and address are free again."""
        self.put(node(2))
        self.put(replace(node(2), name="other", ip="192.168.1.9"))
        self.assertIsNone(self.registry.by_name("node-2"))
        self.assertIsNone(self.registry.by_ip("192.168.1.2"))
        self.put(replace(node(3), name="node-2", ip="192.168.1.2"))

    def test_forget(self) -> None:
        """A forgotten device is gone from everywhere."""
        one = node(2, vpn_mac="02:aa:00:00:00:01")
        self.put(one)
        self.successResultOf(done(self.registry.forget(one)))
        self.assertEqual((len(self.registry), self.store.devices), (0, {}))
        self.assertIsNone(self.registry.get("02:aa:00:00:00:01"))

    def test_new_names(self) -> None:
        """Bad names are Invalid, taken ones Conflict (in any letters): `server` is in DNS, too."""
        self.put(node(2))
        for bad in ("", "a", "1a", "-a", "a_b", "a.b", "x" * 64, "é" * 4, "a b", "a\n"):
            self.assertRaises(Invalid, self.registry.check_new_name, bad)
        for taken in ("node-2", "NODE-2", "server", "Server", "localhost", "LocalHost"):
            self.assertRaises(Conflict, self.registry.check_new_name, taken)
        self.registry.check_new_name("free-1")


class NamingTests(SynchronousTestCase):
    def test_types(self) -> None:
        """User class first, then vendor class, then the vendor of the MAC."""
        for vci, uci, mac, kind, model in (
            ("", "walt.node.rpi-b", "02:00:00:00:00:01", "node", "rpi-b"),
            ("walt.node.pc-x86-64", "iPXE", "02:00:00:00:00:01", "node", "pc-x86-64"),
            ("walt.node.a1", "walt.node.b2", "02:00:00:00:00:01", "node", "b2"),
            ("", "", "6c:b0:ce:00:00:01", "switch", "netgear"),
            ("walt.node.", "", "02:00:00:00:00:01", "unknown", None),
            ("walt.node.A B", "", "02:00:00:00:00:01", "unknown", None),
            ("xwalt.node.pc", "", "02:00:00:00:00:01", "unknown", None),
            # RFC 3004: each user class after its length
            ("", "\x0fwalt.node.rpi-b", "02:00:00:00:00:01", "node", "rpi-b"),
            ("", "\x03lab\x0fwalt.node.rpi-b", "02:00:00:00:00:01", "node", "rpi-b"),
            ("", "\x10walt.node.rpi-b", "02:00:00:00:00:01", "unknown", None),
            ("", "\x0fwalt.node.rpi-b\0", "02:00:00:00:00:01", "unknown", None),
        ):
            guess = guess_type(vci, uci, mac)
            self.assertEqual((guess.type, guess.model), (kind, model), (vci, uci))

    def test_generated(self) -> None:
        """Type and last bytes; a number when that is taken."""
        taken = {"node-18d55d", "node-18d55d-2"}
        self.assertEqual(
            generated_name("node", "02:00:00:18:d5:5d", taken.__contains__), "node-18d55d-3"
        )

    @given(st.none() | st.text(max_size=300), st.sampled_from(["node", "switch", "unknown"]))
    def test_always_valid(self, announced: str | None, kind: str) -> None:
        """Whatever a device announces, its name is valid and free."""
        taken = {"node-18d55d", "abc", "server"}
        name = choose_name(announced, kind, "02:00:00:18:d5:5d", taken.__contains__)
        self.assertTrue(is_device_name(name))
        self.assertNotIn(name, taken)


class SetsTests(SynchronousTestCase):
    def test_keywords_are_no_names(self) -> None:
        """A device with the name of a keyword could not be reached by its name."""
        self.assertEqual(set(KEYWORDS), RESERVED_NAMES)
        for name in KEYWORDS:
            self.assertRaises(Conflict, self.registry.check_new_name, name)

    def setUp(self) -> None:
        self.registry = DeviceRegistry(FakeDeviceStore(), SUBNET)
        self.successResultOf(done(self.registry.put(
            Device("02:00:00:00:01:01", "walt-server", "server", "192.168.1.1"),
            node(2), node(3, "joe/mine:latest"), node(4, "ann/hers:latest"),
            node(5, "waltplatform/other:latest"),
            Device("02:00:00:00:01:02", "sw1", "switch", "192.168.1.6"),
            Device("02:00:00:00:01:03", "sw2", "switch", conf={"lldp.explore": True}),
            Device("02:00:00:00:01:04", "unknown-1", "unknown"),
        )))

    def names(self, text: str, user: str = "joe") -> list[str]:
        """Return the names of a set."""
        return [one.name for one in parse_devices(self.registry, text, user)]

    def test_keywords(self) -> None:
        """Each keyword, sorted by name."""
        for text, expected in (
            ("server", ["walt-server"]), ("my-nodes", ["node-3"]), ("free-nodes", ["node-2"]),
            ("all-nodes", ["node-2", "node-3", "node-4", "node-5"]),
            ("all-switches", ["sw1", "sw2"]), ("explorable-switches", ["sw2"]),
            ("node-4,my-nodes,node-4", ["node-3", "node-4"]),
        ):
            self.assertEqual(self.names(text), expected, text)
        self.assertEqual(len(self.names("all-devices")), 8)

    def test_mistyped_names_get_the_right_one(self) -> None:
        """Names of devices and keywords of sets; none when nothing is near."""
        for text, hint in (
            ("nodes-2", "did you mean node-2? "), ("mynodes", "did you mean my-nodes? "),
            ("all-node", "did you mean all-nodes? "), ("ghost", ""), ("node-9", ""),
        ):
            error = self.assertRaises(NotFound, self.names, text)
            self.assertEqual(
                str(error), f'there is no device named "{text}"; {hint}see: walt device show'
            )

    def test_errors(self) -> None:
        """Unknown names, empty sets, sets without end, members that are not nodes."""
        self.assertRaises(NotFound, self.names, "node-2,ghost")
        self.assertRaises(NotFound, self.names, "")
        self.assertRaises(Invalid, self.names, "my-nodes", "nobody")
        self.assertRaises(Invalid, self.names, "node-2," * (MAX_ITEMS + 1))
        self.assertRaises(Invalid, parse_nodes, self.registry, "node-2,sw1", "joe")

    def test_restricted(self) -> None:
        """Members outside the allowed set are refused."""
        devices = parse_devices(self.registry, "node-2,server", "joe")
        restricted(devices, "server,all-nodes", self.registry, "joe")
        switches = parse_devices(self.registry, "sw1", "joe")
        self.assertRaises(Invalid, restricted, switches, "server,all-nodes", self.registry, "joe")
        self.assertRaises(Invalid, restricted, switches, "my-nodes", self.registry, "nobody")

    def test_ownership(self) -> None:
        """The owner is the user part of the image."""
        split = Ownership()
        split.add(self.registry.all(), "joe")
        self.assertEqual(
            (split.owned, sorted(split.free), split.others),
            (["node-3"], ["node-2", "node-5"], ["node-4"]),
        )
        self.assertEqual(len(split.not_nodes), 4)
