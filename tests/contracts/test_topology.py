"""What every ITopology does: the fake, and Exploration on PostgreSQL; and the reports of nodes."""

from __future__ import annotations

from abc import abstractmethod
from ipaddress import IPv4Network
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.switches import FakeSwitches
from tests.fakes.topology import FakeTopology
from tests.server.streams.platform import NODE, SERVER, SWITCH, Platform
from tests.system import cluster
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.migrate import migrate
from walt.server.adapters.postgres.switches import PostgresSwitches
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.interfaces import ITopology
from walt.server.domain.nodes.neighbours import NeighbourReports
from walt.server.domain.switches.exploration import Exploration

LOW, HIGH = "52:54:00:00:00:03", "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:09"


class TopologyContract(Contract):
    """`make` returns an empty ITopology that knows SWITCH, LOW, HIGH and OTHER."""

    @abstractmethod
    async def make(self) -> ITopology:
        """Given by each implementation; the class tells what."""

    async def test_places(self) -> None:
        """News and repetitions; one place for a node, one node for a port."""
        topology = await self.make()
        verifyObject(ITopology, topology)
        for node, port, new in (
            (LOW, 3, True), (LOW, 3, False), (LOW, None, False), (LOW, 3, False), (LOW, 4, True),
            (HIGH, 4, False), (LOW, 5, True), (HIGH, 4, True), (LOW, 4, False), (LOW, 5, False),
            (HIGH, None, False), (HIGH, 7, True),
        ):
            self.assertEqual(
                await topology.locate(node, SWITCH.mac, port), new, (node, port)
            )
        self.assertTrue(await topology.locate(LOW, OTHER, 4))
        self.assertTrue(await topology.locate(LOW, SWITCH.mac, 4))
        self.assertFalse(await topology.locate(HIGH, SWITCH.mac, 7))


class FakeTopologyTests(TopologyContract, TestCase):
    async def make(self) -> Any:
        return FakeTopology()


class ExplorationTests(TopologyContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> Any:
        from twisted.internet import reactor

        database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(database.close)
        await migrate(database)
        devices = PostgresDevices(database)
        await devices.save([
            SWITCH, *(Device(mac, f"d{n}", "unknown") for n, mac in enumerate((LOW, HIGH, OTHER)))
        ])
        registry = DeviceRegistry(devices, IPv4Network("192.168.1.0/24"))
        await registry.load()
        platform = Platform()
        exploration = Exploration(
            registry, FakeSwitches(), PostgresSwitches(database),
            PlatformLog(platform.logs, lambda: SERVER.mac), lambda: 1e9, nobody,
        )
        await exploration.load()
        return exploration


async def nobody(mac: str, ip: str | None, name: str) -> None:
    """Register nothing: no switch is read here."""


class ReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()
        self.topology = FakeTopology()
        log = PlatformLog(self.platform.logs, lambda: SERVER.mac)
        self.reports = NeighbourReports(self.platform.registry, self.topology, log)

    def report(self, ip: str | None, mac: str, label: str) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.reports.report(ip, mac, label)))

    def explored(self, **settings: Any) -> None:
        device = Device(SWITCH.mac, SWITCH.name, "switch", conf=settings)
        self.successResultOf(Deferred.fromCoroutine(self.platform.registry.put(device)))

    def test_explored_switch(self) -> None:
        """Only of switches that may be explored the place is recorded."""
        self.report(NODE.ip, SWITCH.mac, "12")
        self.assertEqual(self.topology.places, {})
        self.explored(**{"lldp.explore": True})
        for label, port in (("12", 12), ("ge-0/0/1", 12), ("13", 13), ("9" * 50, 13)):
            self.report(NODE.ip, SWITCH.mac, label)
            self.assertEqual(self.topology.places, {NODE.mac: (SWITCH.mac, port)})
        self.assertEqual(self.topology.looked, [SWITCH.name] * 2)
        self.topology.labels["ge-0/0/1"] = 501
        self.report(NODE.ip, SWITCH.mac, "ge-0/0/1")
        self.assertEqual(self.topology.places, {NODE.mac: (SWITCH.mac, 501)})

    def test_other_devices(self) -> None:
        """A report makes no switch of a device, and moves no other node."""
        unknown = Device("02:00:00:00:00:07", "unknown-7", "unknown", ip="192.168.1.7")
        self.successResultOf(Deferred.fromCoroutine(self.platform.registry.put(unknown)))
        self.report(NODE.ip, unknown.mac, "1")
        self.report(NODE.ip, unknown.mac, "1")
        self.assertEqual(self.platform.registry.get(unknown.mac), unknown)
        self.explored(**{"lldp.explore": True})
        self.topology.places[OTHER] = place = (SWITCH.mac, 5)
        self.report(NODE.ip, SWITCH.mac, "5")
        self.assertEqual(self.topology.places, {OTHER: place})

    def test_conversion(self) -> None:
        """Where an administrator wishes it, what is of unknown type becomes a switch, once."""
        self.reports = NeighbourReports(
            self.platform.registry, self.topology,
            PlatformLog(self.platform.logs, lambda: SERVER.mac), convert=True,
        )
        for number, name in ((7, "unknown-7"), (8, "rack")):
            mac = f"02:00:00:00:00:0{number}"
            device = Device(mac, name, "unknown", ip=f"192.168.1.{number}")
            self.successResultOf(Deferred.fromCoroutine(self.platform.registry.put(device)))
            self.report(NODE.ip, mac, "1")
            self.report(NODE.ip, mac, "1")
        switches = [
            self.platform.registry.get(f"02:00:00:00:00:0{number}") for number in (7, 8)
        ]
        self.assertEqual(
            [(one.type, one.name, one.conf) for one in switches if one is not None],
            [("switch", "switch-000007", {}), ("switch", "rack", {})],
        )
        # No node, nor anything else that is known, becomes one.
        self.report(NODE.ip, SERVER.mac, "1")
        self.report(NODE.ip, NODE.mac, "1")
        self.assertEqual(self.platform.registry.get(NODE.mac), NODE)
        self.assertEqual(self.topology.places, {})

    def test_ignored(self) -> None:
        """Unknown nodes, unknown devices, devices that are no switch, callers without address."""
        self.explored(**{"lldp.explore": True})
        for ip, mac in (
            (None, SWITCH.mac), ("192.168.1.99", SWITCH.mac), (SWITCH.ip, SWITCH.mac),
            (NODE.ip, "02:00:00:00:00:99"), (NODE.ip, SERVER.mac), (NODE.ip, NODE.mac),
        ):
            self.report(ip, mac, "1")
        self.assertEqual(self.topology.places, {})
