"""From changes of nodes to mounts, exports and links: order, failures, retries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.devices import FakeDeviceStore
from tests.fakes.images import FakeExporter, FakeMounter
from tests.fakes.services import FakePersistence
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.exports import ExportPlan
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.uses import GRACE
from walt.server.domain.network_services.provisioning import (
    AT_ONCE,
    FEW,
    PATIENCE,
    Provisioning,
    _all_of,
)
from walt.server.domain.retries import FIRST

NET = IPv4Network("192.168.1.0/24")


class Images:
    """The images that exist: `u/a:latest` is id aaaa…"""

    def __init__(self, digits: str) -> None:
        self.digits = digits

    def all(self) -> list[StoredImage]:
        return [StoredImage(f"u/{one}:latest", one * 64) for one in self.digits]

    def by_id(self, names: Iterable[str]) -> dict[str, StoredImage]:
        return {one.image_id: one for one in self.all() if one.fullname in set(names)}


class Exporter(FakeExporter):
    """Notes what it is told among the events; `gate` holds it up, `error` breaks it."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events
        self.gate: Deferred[None] | None = None
        self.error: Exception | None = None

    async def apply(self, plan: ExportPlan) -> dict[str, str]:
        if self.gate is not None:
            await self.gate
        if self.error is not None:
            raise self.error
        self.events.append("export " + " ".join(
            f"{one.image_id[:2]}:{','.join(ip.rpartition('.')[2] for ip in one.readers)}"
            for one in plan.images
        ))
        return await super().apply(plan)

    async def withdraw(self) -> None:
        self.events.append("withdraw")


class Network:
    """DHCP, DNS and links, at once."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def update(self, devices: Any = None, changes: Any = ()) -> Deferred[None]:
        return succeed(None)

    def update_links(self, mounts: Mapping[str, str]) -> Deferred[None]:
        self.events.append("links " + " ".join(sorted(one[:2] for one in mounts.values())))
        return succeed(None)


def node(number: int, image: str) -> Device:
    return Device(
        f"52:54:00:00:00:{number:02x}", f"n{number}", "node", f"192.168.1.{number}",
        model="pc-x86-64", image=f"u/{image}:latest",
    )


class ProvisioningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[str] = []
        self.mounter = FakeMounter(self.events)
        self.exporter = Exporter(self.events)
        self.persistence = FakePersistence()
        self.registry = DeviceRegistry(FakeDeviceStore(), NET)
        self.images = Images("abc")
        self.told: list[tuple[str, str, bool]] = []
        self.directory = directory = Path(self.mktemp()).absolute()
        self.provisioning = Provisioning(
            self.clock, self.registry, self.images, self.mounter,  # type: ignore[arg-type]
            self.exporter, self.persistence, Network(self.events), self, directory,  # type: ignore[arg-type]
        )

    def write(self, topic: str, line: str, *, error: bool = False) -> None:
        """Be the log of the platform."""
        self.told.append((topic, line, error))

    def put(self, *devices: Device) -> list[str]:
        self.successResultOf(self.registry.put(*devices))
        return self.taken()

    def taken(self) -> list[str]:
        events, self.events[:] = self.events[:], []
        return events

    def start(self) -> list[str]:
        self.successResultOf(self.provisioning.start())
        return self.taken()

    def test_a_straight_line(self) -> None:
        """Mount, export, link; exports once."""
        self.start()
        self.assertEqual(self.put(node(10, "a")), ["mount aa", "export aa:10", "links aa"])
        self.assertEqual(self.put(node(11, "a")), ["export aa:10,11", "links aa"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_another_image(self) -> None:
        """The former image stays for the grace time, leaves the exports, is unmounted."""
        self.start()
        self.put(node(10, "a"))
        self.assertEqual(
            self.put(node(10, "b")), ["mount bb", "export aa:10 bb:10", "links aa bb"]
        )
        self.clock.advance(GRACE - 1)
        self.assertEqual(self.taken(), [])
        self.clock.advance(1)
        self.assertEqual(self.taken(), ["export bb:10", "links bb", "unmount aa"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_left_overs_are_taken_over(self) -> None:
        """Mounts of a former server are prepared again if used, else expire."""
        self.mounter.now = {"a" * 64, "b" * 64}
        self.put(node(10, "a"))
        self.assertEqual(self.start(), ["mount aa", "export aa:10 bb:", "links aa bb"])
        self.clock.advance(GRACE)
        self.assertEqual(self.taken(), ["export aa:10", "links aa", "unmount bb"])

    def test_requests_are_merged(self) -> None:
        """Any number of changes during an update make one more update."""
        self.start()
        self.exporter.gate = Deferred()
        first = self.provisioning.update()
        later = [self.provisioning.update() for _ in range(5)]
        Deferred.fromCoroutine(self.registry.put(node(10, "a")))
        settled = Deferred.fromCoroutine(self.provisioning.settled())
        self.assertNoResult(settled)
        gate, self.exporter.gate = self.exporter.gate, None
        gate.callback(None)
        for one in (first, *later, settled):
            self.successResultOf(one)
        self.assertEqual(self.taken().count("export aa:10"), 1)

    def test_many_nodes(self) -> None:
        """Where an update costs more, it waits for others, as long as it may take itself."""
        crowd = [
            replace(node(10, "a"), mac=f"52:54:00:00:01:{number:02x}", name=f"m{number}", ip=None)
            for number in range(AT_ONCE)
        ]
        self.put(*crowd)
        started = self.provisioning.start()
        self.clock.pump([0.01] * 10)
        self.successResultOf(started)
        self.taken()
        self.assertEqual(self.put(node(11, "a")), [])
        self.assertEqual(self.put(node(12, "a")), [])
        settled = Deferred.fromCoroutine(self.provisioning.settled())
        self.assertNoResult(settled)
        self.clock.pump([0.01] * 10)
        self.assertEqual(self.taken(), ["export aa:11,12", "links aa"])
        self.successResultOf(settled)

    def test_many_nodes_and_a_stop(self) -> None:
        """What waits when the server stops is not begun."""
        self.test_many_nodes()
        self.assertEqual(self.put(node(13, "a")), [])
        stopped = Deferred.fromCoroutine(self.provisioning.suspend())
        self.clock.pump([0.01] * 10)
        self.successResultOf(stopped)
        self.assertEqual(self.taken(), [])

    def test_a_broken_image(self) -> None:
        """Its nodes are told, the others boot; it is tried again by itself."""
        self.start()
        self.mounter.broken = {"a" * 64}
        one, two = node(10, "a"), node(11, "b")
        self.assertEqual(
            self.put(one, two), ["mount aa", "mount bb", "export bb:11", "links bb"]
        )
        reason = "its image cannot be mounted: cannot mount"
        self.assertEqual(dict(self.provisioning.troubles), {one.mac: reason})
        self.assertEqual(self.told, [("nodes", f"n10 cannot boot: {reason}", True)])
        self.mounter.broken = set()
        self.clock.advance(FIRST)
        self.assertEqual(self.taken(), ["mount aa", "export aa:10 bb:11", "links aa bb"])
        self.assertEqual(dict(self.provisioning.troubles), {})
        self.assertEqual(self.told[1:], [("nodes", "n10 can boot again.", False)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused_exports(self) -> None:
        """A node whose export is refused is told so; retries follow until it works."""
        self.start()
        one = node(10, "a")
        self.exporter.failing = {one.mac: "no"}
        self.put(one, node(11, "a"))
        self.assertEqual(dict(self.provisioning.troubles), {one.mac: "no"})
        self.clock.advance(FIRST)
        self.assertEqual(self.told, [("nodes", "n10 cannot boot: no", True)])
        self.exporter.failing = {}
        self.clock.advance(2 * FIRST)
        self.assertEqual(dict(self.provisioning.troubles), {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_removed_node_has_no_trouble(self) -> None:
        """What failed for a node is forgotten with it."""
        self.start()
        one = node(10, "a")
        self.exporter.failing = {one.mac: "no"}
        self.put(one)
        self.successResultOf(self.registry.forget(one))
        self.assertEqual(dict(self.provisioning.troubles), {})

    def test_busy_image(self) -> None:
        """An image that something holds delays no update."""
        self.start()
        self.put(node(10, "a"))
        self.put(node(10, "b"))
        self.mounter.broken = {"a" * 64}
        self.clock.advance(GRACE)
        self.assertEqual(self.taken(), ["export bb:10", "links bb", "unmount aa"])
        self.assertEqual(
            self.put(node(11, "c")), ["mount cc", "export bb:10 cc:11", "links bb cc"]
        )
        self.assertEqual(dict(self.provisioning.troubles), {})
        self.mounter.broken = set()
        self.clock.advance(FIRST)
        self.assertIn("unmount aa", self.taken())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_unexpected_failure(self) -> None:
        """An update that breaks is logged, waiters go on, and it is tried again."""
        self.start()
        self.exporter.error = ZeroDivisionError()
        self.put(node(10, "a"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.exporter.error = None
        self.clock.advance(FIRST)
        self.assertEqual(self.taken(), ["export aa:10", "links aa"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_owner_and_persist(self) -> None:
        """Another owner means another persistent directory, so that the exports change."""
        self.start()
        self.put(node(10, "a"))
        self.assertIsNone(self.exporter.plans[-1].nodes[0].persist)
        self.assertIsNone(self.provisioning.begins(node(10, "a").mac))
        mine = self.exporter.plans[-1].nodes[0].persist
        assert mine is not None
        self.assertEqual(mine.name, "u")
        self.put(replace(node(10, "a"), conf={"mount.persist": False}))
        self.assertIsNone(self.exporter.plans[-1].nodes[0].persist)

    def test_persistent_data_is_made_at_the_first_boot(self) -> None:
        """Not at registration; who boots waits for it; what is there stays in force."""
        self.start()
        self.put(node(10, "a"), node(11, "a"))
        self.assertEqual(self.persistence.mounted, set())
        self.exporter.gate = gate = Deferred[None]()
        begun = self.provisioning.begins_at("192.168.1.10")
        assert begun is not None
        again = self.provisioning.begins(node(10, "a").mac)
        assert again is not None
        self.assertNoResult(begun)
        self.exporter.gate = None
        gate.callback(None)
        self.successResultOf(begun)
        self.successResultOf(again)
        self.assertIsNone(self.provisioning.begins(node(10, "a").mac))
        (point,) = self.persistence.mounted
        self.assertEqual([one.persist for one in self.exporter.plans[-1].nodes], [point, None])
        # Nothing is lost when it waits in vain.
        self.exporter.gate = Deferred()
        late = self.provisioning.begins(node(11, "a").mac)
        assert late is not None
        self.clock.advance(PATIENCE)
        self.successResultOf(late)
        self.exporter.gate.callback(None)
        self.assertEqual(len(self.persistence.mounted), 2)
        for unknown in ("52:54:00:00:00:99",):
            self.assertIsNone(self.provisioning.begins(unknown))
        self.assertIsNone(self.provisioning.begins_at("192.168.1.99"))

    def test_much_persistent_data(self) -> None:
        """While that of many nodes is made, all of them find what they boot; then all of it."""
        nodes = [node(number, "a") for number in range(10, 10 + FEW + 2)]
        self.start()
        self.put(nodes[0])
        self.exporter.gate = busy = Deferred[None]()
        begun = [self.provisioning.begins(nodes[0].mac)]
        self.put(*nodes[1:])
        begun += [self.provisioning.begins(one.mac) for one in nodes[1:]]
        self.persistence.gate = making = Deferred[None]()
        self.exporter.gate = None
        busy.callback(None)
        for one in begun[1:]:
            assert one is not None
            self.assertNoResult(one)
        plan = self.exporter.plans[-1]
        self.assertEqual(len(plan.images[0].readers), len(nodes))
        self.assertEqual([one.persist is None for one in plan.nodes].count(True), FEW + 1)
        self.assertIn("link", " ".join(self.taken()[-1:]))
        self.persistence.gate = None
        making.callback(None)
        for one in begun:
            assert one is not None
            self.successResultOf(one)
        self.assertTrue(all(one.persist is not None for one in self.exporter.plans[-1].nodes))
        self.assertEqual(len(self.persistence.mounted), len(nodes))

    def test_persistent_data_that_is_there(self) -> None:
        """After a restart of the server it is in force at once, that of older servers, too."""
        self.put(node(10, "a"), node(11, "a"), node(12, "a"))
        nodes = self.directory
        self.persistence.present = {
            nodes / node(10, "a").mac / "persist_dirs" / "u", nodes / node(11, "a").mac,
        }
        self.start()
        self.assertEqual([one.persist is None for one in self.exporter.plans[-1].nodes],
                         [False, False, True])

    def test_suspended(self) -> None:
        """While the server stops, requests succeed without effect."""
        self.start()
        self.put(node(10, "a"))
        self.successResultOf(Deferred.fromCoroutine(self.provisioning.suspend()))
        self.successResultOf(self.provisioning.update())
        self.assertEqual(self.put(node(10, "b")), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_during_an_update(self) -> None:
        """The stop waits for the update, which links and unmounts nothing more."""
        self.start()
        self.exporter.gate = Deferred()
        Deferred.fromCoroutine(self.registry.put(node(10, "a")))
        stopping = Deferred.fromCoroutine(self.provisioning.withdraw())
        self.assertNoResult(stopping)
        self.assertTrue(self.exporter.given_up and self.persistence.given_up)
        self.exporter.gate.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(self.taken(), ["mount aa", "export aa:10", "withdraw", "unmount aa"])


class WaitingTests(SynchronousTestCase):
    def test_cancelled(self) -> None:
        """Who stops waiting is told so; the work goes on."""
        work: Deferred[Any] = Deferred()
        waiting = _all_of([work])
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertFalse(work.called)

    def test_all(self) -> None:
        """It waits for all."""
        one: Deferred[Any] = Deferred()
        two: Deferred[Any] = Deferred()
        waiting = _all_of([one, two])
        one.callback(None)
        self.assertNoResult(waiting)
        two.callback("done")
        self.assertEqual(len(self.successResultOf(waiting)), 2)
