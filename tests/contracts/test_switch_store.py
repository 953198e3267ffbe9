"""What every ISwitchStore does: the fake and PostgreSQL."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.switch_store import FakeSwitchStore
from tests.server.domain.switches.test_topology import hears, told
from tests.system import cluster
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.migrate import migrate
from walt.server.adapters.postgres.switches import PostgresSwitches
from walt.server.domain.devices.model import Device
from walt.server.domain.switches.interfaces import ISwitchStore, PortOff
from walt.server.domain.switches.poe import PowerPort
from walt.server.domain.switches.topology import BRIDGE, LLDP, Link

A, B, NODE = "02:00:00:00:0a:01", "02:00:00:00:0a:02", "02:00:00:00:0b:01"


class SwitchStoreContract(Contract):
    """`make` returns an empty ISwitchStore that knows A and B (switches) and NODE."""

    @abstractmethod
    async def make(self) -> ISwitchStore:
        """Given by each implementation; the class tells what."""

    async def test_everything(self) -> None:
        """What was put in is there again, surveys without what was seen only then."""
        store = await self.make()
        verifyObject(ISwitchStore, store)
        power = PowerPort((1, 2), (1, 3, 2), 1, 2, True, True, 2, "proof")
        survey = replace(
            told(A, 3, {1: {NODE}}, (hears(2, B, "p1"),)), power=(power,), name="\u202eq'\""
        )
        link = Link((A, 2), (B, None), LLDP, True, 100.5)
        place = Link((A, 1), (NODE, None), BRIDGE, False, 50.25)
        wrong = Link((A, 2), (NODE, None), BRIDGE, True, 10.0)
        await store.save({A: survey}, [], [wrong], [])
        await store.save({}, [wrong], [link, place], [link])
        await store.save({}, [link._replace(confirmed=False)], [link], [])
        await store.save({}, [], [place], [])
        await store.name_port(A, 1, "desk")
        await store.name_port(A, 2, "other")
        await store.name_port(A, 2, None)
        await store.name_port(A, 1, "desk-1")
        off = PortOff(A, 2, "hard-reboot", (1, 3, 2), 1, NODE)
        await store.note_off([off, replace(off, port=3)])
        await store.note_off([replace(off, reason="powersave")])
        await store.note_on([replace(off, port=3), replace(off, port=9)])
        kept = await store.load()
        self.assertEqual(kept.surveys, {A: survey.kept()})
        self.assertEqual(set(kept.moments), {A})
        self.assertEqual(sorted(kept.links, key=repr), sorted([link, place], key=repr))
        self.assertEqual(kept.names, {(A, 1): "desk-1"})
        self.assertEqual(list(kept.off), [replace(off, reason="powersave")])


class FakeSwitchStoreTests(SwitchStoreContract, TestCase):
    async def make(self) -> Any:
        return FakeSwitchStore()


class PostgresSwitchStoreTests(SwitchStoreContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> Any:
        from twisted.internet import reactor

        self.database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(self.database.close)
        await migrate(self.database)
        await PostgresDevices(self.database).save([
            Device(A, "a", "switch"), Device(B, "b", "switch"), Device(NODE, "n", "unknown"),
        ])
        return PostgresSwitches(self.database)

    async def test_history(self) -> None:
        """News stay; what refers to devices that are gone is left out, and goes with them."""
        store = await self.make()
        link = Link((A, 2), (B, None), LLDP, True, 100.0)
        gone = Link((A, 2), ("02:00:00:00:0d:01", None), LLDP, True, 100.0)
        before: list[Link] = []
        for port in (1, 2, 3):
            one = link._replace(first=(A, port))
            await store.save({}, None if port == 2 else before, [one, gone], [one, gone])
            before = [one]
        rows = await self.database.query("SELECT port1 FROM sightings ORDER BY id")
        self.assertEqual([port for port, in rows], [1, 2, 3])
        self.assertEqual(list((await store.load()).links), [link._replace(first=(A, 3))])
        await PostgresDevices(self.database).forget([B], {})
        self.assertEqual(await self.database.query("SELECT 1 FROM sightings"), [])
        self.assertEqual(list((await store.load()).links), [])
