from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, node, stored
from walt.common.errors import CommandFailed, Unavailable
from walt.common.leases import Sighting
from walt.server.domain.devices.model import Device

MAC = "52:54:00:00:00:07"
UCI = "walt.node.pc-x86-64"


class RegistrationTests(SynchronousTestCase):
    def make(self, *images: Any, download: Any = None, devices: tuple[Device, ...] = ()) -> None:
        """Make a platform."""
        self.fake = FakePlatform(*images, download=download)
        self.now(self.fake.start())
        if devices:
            self.now(self.fake.registry.put(*devices))

    def now(self, coroutine: Any) -> Any:
        """Return what a coroutine gives at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def see(self, mac: str = MAC, ip: str | None = "192.168.1.7", **more: Any) -> None:
        """Register a sighting."""
        self.now(self.fake.registration.register(Sighting(mac, ip, **more)))

    def lines(self) -> list[str]:
        """Return what was logged about devices."""
        return self.now(self.fake.lines("devices"))

    def device(self, mac: str = MAC) -> Device:
        """Return a device."""
        found = self.fake.registry.get(mac)
        assert found is not None
        return found

    def test_node(self) -> None:
        """A node with its image there boots the default one, and its boot is watched."""
        self.make(stored(DEFAULT))
        self.see(uci=UCI)
        self.assertEqual(
            self.device(),
            Device(MAC, "node-000007", "node", "192.168.1.7", model="pc-x86-64", image=DEFAULT),
        )
        self.assertEqual(
            self.lines(), [f"new node name=node-000007 model=pc-x86-64 mac={MAC} ip=192.168.1.7"]
        )
        self.fake.clock.advance(180)
        self.fake.monitor.check()
        self.assertEqual(self.fake.late, [["node-000007"]])

    def test_leases_of_before_the_start(self) -> None:
        """They bring devices that nobody recorded, and change none that is known."""
        self.make(stored(DEFAULT), devices=(node(9),))
        known = self.device(node(9).mac)
        for mac in (MAC, known.mac):
            self.fake.registration.found(Sighting(mac, "192.168.1.77", uci=UCI))
        self.assertEqual(self.device(MAC).ip, "192.168.1.77")
        self.assertIs(self.device(known.mac), known)

    def test_stored_before_the_answer(self) -> None:
        """The answer comes when the database has the device."""
        self.make(stored(DEFAULT))
        self.fake.store.gate = gate = Deferred()
        running = Deferred.fromCoroutine(
            self.fake.registration.register(Sighting(MAC, "192.168.1.7", uci=UCI))
        )
        self.assertNoResult(running)
        gate.callback(None)
        self.successResultOf(running)

    def test_download(self) -> None:
        """Without its image a board is unknown until the download is over."""
        gate: Deferred[None] = Deferred()

        async def download(fullname: str) -> None:
            await gate
            image = stored(fullname)
            self.fake.image_store.names[fullname] = image

        self.make(download=download)
        self.see(uci=UCI)
        self.assertEqual((self.device().type, self.device().name), ("unknown", "unknown-000007"))
        self.see(uci=UCI)  # it tries again meanwhile: one download
        self.assertEqual(len(self.fake.workflows.running()), 1)
        gate.callback(None)
        self.assertEqual((self.device().type, self.device().name), ("node", "node-000007"))
        self.assertEqual(self.lines(), [
            f"new device name=unknown-000007 type=unknown mac={MAC} ip=192.168.1.7",
            "Device unknown-000007 is a walt node of type 'pc-x86-64'.",
            f"Trying to download a default image for 'pc-x86-64' nodes: {DEFAULT}...",
            f"Image {DEFAULT} was downloaded successfully.",
            "renamed unknown-000007 to node-000007 for clarity",
            "new node (device type previously unknown) name=node-000007 model=pc-x86-64"
            f" mac={MAC} ip=192.168.1.7",
        ])

    def test_failed_download(self) -> None:
        """Any failure is told, and a later event tries again."""
        errors: list[Exception] = [Unavailable("No registry answers"), CommandFailed("Disk full")]
        left = list(errors)

        async def download(fullname: str) -> None:
            raise left.pop(0)

        self.make(download=download)
        self.see(uci=UCI)
        self.see(uci=UCI)
        self.assertEqual(left, [])
        self.assertEqual(self.device().type, "unknown")
        lines = self.lines()
        self.assertIn("no registry answers", lines)
        self.assertIn("disk full", lines)
        self.assertEqual(
            lines[-1], "New pc-x86-64 nodes will remain of type unknown until this is solved."
        )

    def test_forgotten_during_the_download(self) -> None:
        """A device that was forgotten meanwhile does not come back."""
        gate: Deferred[None] = Deferred()

        async def download(fullname: str) -> None:
            await gate
            self.fake.image_store.names[fullname] = stored(fullname)

        self.make(download=download)
        self.see(uci=UCI)
        self.now(self.fake.registry.forget(self.device()))
        gate.callback(None)
        self.assertIsNone(self.fake.registry.get(MAC))

    def test_identified_switch(self) -> None:
        """A chosen name stays; only names with `unknown` are made clearer."""
        self.make(devices=(
            Device("6c:b0:ce:00:00:01", "unknown-000001", "unknown", "192.168.1.8"),
            Device("6c:b0:ce:00:00:02", "rack", "unknown", "192.168.1.9"),
        ))
        self.see("6c:b0:ce:00:00:01", "192.168.1.8")
        self.see("6c:b0:ce:00:00:02", "192.168.1.9")
        self.assertEqual(self.lines(), [
            "renamed unknown-000001 to switch-000001 for clarity",
            "new switch (device type previously unknown) name=switch-000001"
            " mac=6c:b0:ce:00:00:01 ip=192.168.1.8",
            "new switch (device type previously unknown) name=rack"
            " mac=6c:b0:ce:00:00:02 ip=192.168.1.9",
        ])

    def test_known_node(self) -> None:
        """Nothing changes for a node, whatever its lease says."""
        self.make(stored(DEFAULT), devices=(node(7, "joe/x:latest", mac=MAC),))
        before = self.device()
        self.see(uci="walt.node.other", name="evil")
        self.assertEqual((self.device(), self.lines()), (before, []))

    def test_addresses(self) -> None:
        """An address in walt-net replaces none and one outside; never another one inside."""
        self.make(devices=(
            Device(MAC, "a1", "unknown"), Device("52:54:00:00:00:08", "b1", "unknown", "10.0.0.1"),
        ))
        self.see(ip="192.168.1.20")
        self.see("52:54:00:00:00:08", "192.168.1.21")
        self.assertEqual(self.device().ip, "192.168.1.20")
        self.assertEqual(self.device("52:54:00:00:00:08").ip, "192.168.1.21")
        self.see(ip="192.168.1.30")
        self.see(ip="10.0.0.9")
        self.assertEqual(self.device().ip, "192.168.1.20")

    def test_stopped_during_the_download(self) -> None:
        """A server that stops ends it, and that is no failure."""

        async def download(fullname: str) -> None:
            await Deferred()

        self.make(download=download)
        self.see(uci=UCI)
        stopped = Deferred.fromCoroutine(self.fake.workflows.stop(10))
        self.fake.clock.advance(10)
        self.successResultOf(stopped)
        self.assertEqual(self.device().type, "unknown")
        gc.collect()  # nobody took a failure: now it is told
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_claimed_address(self) -> None:
        """The first owner keeps an address; the second one is recorded without."""
        self.make(stored(DEFAULT), devices=(node(7),))
        self.see(uci=UCI)
        self.assertEqual(self.device().ip, None)
        self.assertEqual(self.lines()[0], f"device mac={MAC} claims 192.168.1.7, the address of"
                         " node-7; it is recorded without address")

    def test_stopping(self) -> None:
        """A server that stops registers nothing."""
        self.make(stored(DEFAULT))
        self.fake.registration.stop()
        self.see(uci=UCI)
        self.assertIsNone(self.fake.registry.get(MAC))
