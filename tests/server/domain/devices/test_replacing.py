"""Changes of many devices at one moment, made in several turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.devices import FakeDeviceStore
from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.replacing import AT_ONCE, remade

NODES = [
    Device(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}", f"n{number}", "node")
    for number in range(2 * AT_ONCE + 1)
]


class RemadeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = DeviceRegistry(FakeDeviceStore(), IPv4Network("10.0.0.0/8"))
        self.put(*NODES)
        self.sizes: list[int] = []

    def put(self, *devices: Device) -> None:
        """Record devices."""
        self.successResultOf(Deferred.fromCoroutine(self.registry.put(*devices)))

    def make(self, some: Sequence[Device]) -> list[Device]:
        """Return devices with another image."""
        self.sizes.append(len(some))
        return [replace(device, image="joe/x:latest") for device in some]

    def test_slices(self) -> None:
        """Some in each turn, all of them told."""
        work: Deferred[list[Change]] = Deferred.fromCoroutine(
            remade(self.registry, NODES, self.make, self.clock)
        )
        self.assertEqual(self.sizes, [AT_ONCE])
        self.clock.pump([0, 0])
        changes = self.successResultOf(work)
        self.assertEqual(self.sizes, [AT_ONCE, AT_ONCE, 1])
        self.assertEqual([change.old for change in changes], NODES)
        self.assertEqual({change.new.image for change in changes if change.new is not None},
                         {"joe/x:latest"})

    def test_changed_meanwhile(self) -> None:
        """What others changed stays changed, who is gone is left out."""
        work = Deferred.fromCoroutine(remade(self.registry, NODES, self.make, self.clock))
        self.put(replace(NODES[0], name="renamed"))
        self.successResultOf(Deferred.fromCoroutine(self.registry.forget(NODES[1])))
        while not work.called:
            self.clock.advance(0)
        changes = self.successResultOf(work)
        found = {change.mac: change.new for change in changes}
        self.assertEqual(found.keys(), {node.mac for node in NODES} - {NODES[1].mac})
        self.assertEqual(found[NODES[0].mac],
                         replace(NODES[0], name="renamed", image="joe/x:latest"))
