"""What every store of boot records does: the fake and PostgreSQL."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.contracts.test_device_store import NODE, VIRTUAL
from tests.fakes.boots import FakeBoots
from tests.system import cluster
from walt.server.adapters.postgres.boots import PostgresBoots
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.migrate import migrate
from walt.server.domain.nodes.boots import BOOTS_KEPT, Boot, Outcome, Stage
from walt.server.domain.nodes.interfaces import IBoots

BEGAN = 1_790_000_000.123456
FIRST = Boot(NODE.mac, BEGAN, "node-1", moments={Stage.ADDRESS: BEGAN})


class BootsContract(Contract):
    """`make` returns an empty IBoots that knows the nodes NODE and VIRTUAL."""

    @abstractmethod
    async def make(self) -> IBoots:
        """Given by each implementation; the class tells what."""

    async def test_what_is_saved_is_found(self) -> None:
        """Every field; a record is replaced; oldest first, so many of each node."""
        boots = await self.make()
        verifyObject(IBoots, boots)
        whole = Boot(
            NODE.mac, BEGAN + 1, "node-1", "joe/mine:latest", "sha256:1", "a %s 'cause'", 3,
            {stage: BEGAN + 2 + stage for stage in Stage}, Outcome.FAILED, "because",
        )
        other = replace(FIRST, mac=VIRTUAL.mac, asked=BEGAN + 0.5)
        await boots.save_boots([replace(whole, outcome=Outcome.BOOTING), FIRST, other])
        await boots.save_boots([whole])
        self.assertEqual(await boots.last_boots(None, 10), [FIRST, other, whole])
        self.assertEqual(await boots.last_boots(None, 1), [other, whole])
        self.assertEqual(await boots.last_boots([NODE.mac, "other"], 10), [FIRST, whole])
        self.assertEqual(await boots.last_boots([], 10), [])
        self.assertEqual(await boots.last_boots(None, 10, 2), [other, whole])
        self.assertEqual(await boots.last_boots(None, 1, 9), [other, whole])
        self.assertEqual(await boots.last_boots([NODE.mac], 10, 1), [whole])
        self.assertEqual(await boots.unfinished(), [other])
        again = replace(FIRST, asked=BEGAN + 2)
        await boots.save_boots([again])
        self.assertEqual(await boots.unfinished(), [other, again])

    async def test_unknown_nodes_are_left_out(self) -> None:
        """Those that were removed meanwhile."""
        boots = await self.make()
        await boots.save_boots([replace(FIRST, mac="02:00:00:00:00:99"), FIRST])
        self.assertEqual(await boots.last_boots(None, 10), [FIRST])

    async def test_the_last_ones_are_kept(self) -> None:
        """Of each node, however many it had."""
        boots = await self.make()
        many = [replace(FIRST, asked=BEGAN + number) for number in range(BOOTS_KEPT + 2)]
        await boots.save_boots([replace(FIRST, mac=VIRTUAL.mac)])
        await boots.save_boots(many[:BOOTS_KEPT])
        await boots.save_boots(many[BOOTS_KEPT:])
        found = await boots.last_boots(None, BOOTS_KEPT + 9)
        self.assertEqual(found, [replace(FIRST, mac=VIRTUAL.mac), *many[2:]])


class FakeBootsTests(BootsContract, TestCase):
    async def make(self) -> Any:
        return FakeBoots({NODE.mac, VIRTUAL.mac})


class PostgresBootsTests(BootsContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> Any:
        from twisted.internet import reactor

        database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(database.close)
        await migrate(database)
        self.devices = PostgresDevices(database)
        await self.devices.save([NODE, VIRTUAL])
        return PostgresBoots(database)

    async def test_records_go_with_their_node(self) -> None:
        """When it is removed."""
        boots = await self.make()
        await boots.save_boots([FIRST])
        await self.devices.forget([NODE.mac], {})
        self.assertEqual(await boots.last_boots(None, 10), [])
