"""What a peer of walt-net says of devices: its own address, or one of dhcpd; nothing else."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, stored
from walt.common.errors import Denied, Invalid, LimitExceeded
from walt.common.leases import Sighting
from walt.server.domain.devices.model import Device
from walt.server.domain.nodes.announcements import (
    MAX_OF_CALLER,
    PATIENCE,
    Announcements,
    LeaseBook,
)
from walt.server.domain.nodes.device_views import DeviceViews
from walt.server.domain.nodes.registration import MAX_UNKNOWN
from walt.server.domain.nodes.views import AT_ONCE

MAC, OTHER = "52:54:00:00:00:07", "52:54:00:00:00:08"
IP, UCI = "192.168.1.7", "walt.node.pc-x86-64"


class AnnouncementTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin()

    def begin(self, most_unknown: int = MAX_UNKNOWN) -> None:
        """Start a platform."""
        self.fake = FakePlatform(stored(DEFAULT), most_unknown=most_unknown)
        self.successResultOf(Deferred.fromCoroutine(self.fake.start()))
        self.book = LeaseBook()
        self.announcements = Announcements(
            self.fake.registry, self.fake.registration, self.book, "192.168.1.1", self.fake.clock
        )

    def announce(self, caller: str | None, mac: str, ip: str | None, **more: Any) -> Deferred[None]:
        sighting = Sighting(mac, ip, **more)
        return Deferred.fromCoroutine(self.announcements.announce(caller, sighting))

    def put(self, *devices: Device) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.fake.registry.put(*devices)))

    def test_one_that_waits_for_many(self) -> None:
        """It has its share of those who wait, and keeps no other peer from waiting."""
        waiting = [
            self.announce(IP, f"52:54:00:00:02:{number:02x}", f"192.168.1.{number}")
            for number in range(100, 100 + MAX_OF_CALLER + 5)
        ]
        for refused in waiting[MAX_OF_CALLER:]:
            self.failureResultOf(refused, LimitExceeded)
        honest = self.announce("192.168.1.60", MAC, "192.168.1.77")
        self.assertNoResult(honest)
        self.book.committed(MAC, "192.168.1.77")
        self.successResultOf(honest)
        self.fake.clock.advance(PATIENCE)
        for late in waiting[:MAX_OF_CALLER]:
            self.failureResultOf(late, Denied)
        again = self.announce(IP, MAC, "192.168.1.78")
        self.assertNoResult(again)
        self.fake.clock.advance(PATIENCE)
        self.failureResultOf(again, Denied)

    def test_own_address(self) -> None:
        """A node tells of itself."""
        self.successResultOf(self.announce(IP, MAC, IP, uci=UCI))
        found = self.fake.registry.get(MAC)
        assert found is not None
        self.assertEqual((found.ip, found.type), (IP, "node"))

    def test_lease(self) -> None:
        """A host tells of a node that has a lease, or gets it a moment later."""
        self.book.committed(MAC, IP)
        self.successResultOf(self.announce("192.168.1.99", MAC, IP))
        waiting = self.announce("192.168.1.99", OTHER, "192.168.1.8")
        self.assertNoResult(waiting)
        self.book.committed(OTHER, "192.168.1.8")
        self.successResultOf(waiting)
        self.assertEqual({one.ip for one in self.fake.registry.all()} - {"192.168.1.1"},
                         {IP, "192.168.1.8"})

    def test_refused(self) -> None:
        """Addresses of others, of the server, of no lease, of other networks, of this machine."""
        self.put(Device(OTHER, "other", "unknown", ip="192.168.1.8"))
        before = self.fake.registry.all()
        for ip in (
            "127.0.0.1", "10.0.0.1", "8.8.8.8", "0.0.0.0", "192.168.1.0", "192.168.1.255",
            "192.168.1.1", None,
        ):
            for caller in (IP, ip, None):
                self.failureResultOf(self.announce(caller, MAC, ip), Invalid)
        for caller, mac, ip in (
            (IP, MAC, "192.168.1.8"), ("192.168.1.8", MAC, "192.168.1.8"), (IP, OTHER, IP),
            (IP, MAC, "192.168.1.9"), (IP, OTHER, "192.168.1.8"),
        ):
            refused = self.announce(caller, mac, ip, uci=UCI)
            self.fake.clock.advance(PATIENCE)
            self.failureResultOf(refused, Denied)
        self.assertEqual(self.fake.registry.all(), before)

    def test_unknown_devices_are_limited(self) -> None:
        """With one warning; nodes are registered still."""
        self.begin(most_unknown=3)
        for number in range(10, 20):
            ip = f"192.168.1.{number}"
            self.successResultOf(self.announce(ip, f"52:54:00:00:01:{number}", ip))
        self.successResultOf(self.announce(IP, MAC, IP, uci=UCI))
        kinds = sorted(one.type for one in self.fake.registry.all())
        self.assertEqual(kinds, ["node", "server", "unknown", "unknown", "unknown"])
        lines = self.successResultOf(Deferred.fromCoroutine(self.fake.lines("devices")))
        self.assertEqual(sum("no more are" in line for line in lines), 1, lines)

    def test_many_rows(self) -> None:
        """They are made in several turns; other things are done between them."""
        for number in range(2 * AT_ONCE):
            name, mac = f"d{number:03}", f"52:54:00:00:02:{number:02x}"
            device = Device(mac, name, "unknown" if number % 2 else "switch")
            self.successResultOf(Deferred.fromCoroutine(self.fake.registry.put(device)))
        clock = Clock()
        views = DeviceViews(
            self.fake.registry, lambda mac: False, lambda mac: {}, "192.168.1.1", clock
        )
        wanted = Deferred.fromCoroutine(views.tables())
        self.assertFalse(wanted.called)
        clock.advance(0)
        tables = json.loads(self.successResultOf(wanted))
        self.assertEqual(
            {kind: [row["name"] for row in rows if row["name"].startswith("d")]
             for kind, rows in tables.items()},
            {"known": [f"d{number:03}" for number in range(0, 2 * AT_ONCE, 2)],
             "unknown": [f"d{number:03}" for number in range(1, 2 * AT_ONCE, 2)]},
        )

    def test_records_for_nodes(self) -> None:
        """The community of a switch is not in them."""
        conf = {"snmp.community": "secret", "snmp.version": 2, "netsetup": 1, "later": "x"}
        switch = Device(OTHER, "switch-8", "switch", ip="192.168.1.8", conf=conf)
        self.successResultOf(Deferred.fromCoroutine(self.fake.registry.put(switch)))
        views = DeviceViews(
            self.fake.registry, lambda mac: False, lambda mac: {}, "192.168.1.1", Clock()
        )
        self.assertEqual(views.for_nodes(OTHER), {
            "mac": OTHER, "ip": "192.168.1.8", "name": "switch-8", "type": "switch",
            "conf": {"netsetup": 1}, "in_walt_net": True, "model": None,
        })
