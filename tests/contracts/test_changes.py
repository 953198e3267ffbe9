"""What every IChanges has of what a store of devices changed: the fakes and PostgreSQL."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg2
from hypothesis import given
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.contracts.test_device_store import NODE, SWITCH, UNKNOWN
from tests.fakes.devices import FakeChanges, FakeDeviceStore
from tests.server.domain.devices.test_changes import STRANGE
from tests.system import cluster
from walt.server.adapters.postgres.changes import PostgresChanges, recording
from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.images import PostgresImages
from walt.server.adapters.postgres.migrate import migrate
from walt.server.adapters.postgres.switches import PostgresSwitches
from walt.server.domain.devices.changes import Change, IChanges, Recorded, of_device
from walt.server.domain.devices.model import Device
from walt.server.domain.requester import acting
from walt.server.domain.switches.topology import LLDP, Link

_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
HOSTILE = "x'); DROP TABLE changes; -- %s \\ \u202e\U0001f427"


class ChangesContract(Contract):
    """`make` returns an empty store of devices, and the record of its changes."""

    @abstractmethod
    async def make(self) -> tuple[Any, IChanges]:
        """Given by each implementation; the class tells what."""

    async def test_what_was_recorded(self) -> None:
        """In order, once, in pages, since a moment; devices that are gone stay in it."""
        store, changes = await self.make()
        verifyObject(IChanges, changes)
        self.assertEqual(list(await changes.since(0, None, 10)), [])
        made = list(of_device(NODE.mac, None, NODE, "ann"))
        await store.save([NODE, UNKNOWN], made)
        renamed = replace(NODE, name="other")
        more = list(of_device(NODE.mac, NODE, renamed, None))
        await store.save([renamed], more)
        await store.save([renamed], more)  # it was not known whether that had happened
        gone = list(of_device(NODE.mac, renamed, None, "bob"))
        await store.forget([NODE.mac], {}, gone)
        found = await changes.since(0, None, 100)
        self.assertEqual([one.change for one in found], [*made, *more, *gone])
        self.assertEqual(sorted({one.number for one in found}), [one.number for one in found])
        page = await changes.since(0, None, 2)
        self.assertEqual(list(await changes.since(0, page[-1].number, 2)), list(found[2:4]))
        late = found[-1].moment + 1
        self.assertEqual(list(await changes.since(late, None, 2)), [])
        # A clock may be set back: who follows goes by numbers alone.
        self.assertEqual(list(await changes.since(late, found[-2].number, 2)), [found[-1]])

    async def test_hostile_texts(self) -> None:
        """Texts are values, never SQL; long ones are cut."""
        store, changes = await self.make()
        made = [
            Change("setting", NODE.mac, HOSTILE, HOSTILE, "y" * 1000, HOSTILE),
            *of_device(NODE.mac, None, replace(NODE, conf={"a": "z" * 5000}), None),
        ]
        await store.save([NODE], made)
        found = [one.change for one in await changes.since(0, None, 100)]
        self.assertEqual(found, made)
        self.assertLessEqual(max(len(one.after or "") for one in found), 1000)
        # Where long texts differ is not seen, that they do is.
        long = [replace(NODE, conf={"a": "z" * 5000 + end}) for end in "xy"]
        await store.save([long[1]], list(of_device(NODE.mac, *long, "ann")))
        last = [one.change for one in await changes.since(0, None, 100)][-1]
        self.assertEqual((last.item, last.who), ("a", "ann"))
        self.assertNotEqual(last.before, last.after)

    async def test_any_change_is_taken(self) -> None:
        """Whatever two states of a device are, what differs is recorded."""
        store, changes = await self.make()
        made: list[Change] = []

        @given(STRANGE, STRANGE)
        def compare(before: Device | None, after: Device | None) -> None:
            made.extend(of_device(NODE.mac, before, after, "ann"))

        compare()
        await store.save([], made)
        found: list[Change] = []
        number: int | None = None
        while page := await changes.since(0, number, 1000):
            found += [one.change for one in page]
            number = page[-1].number
        self.assertEqual(found, made)


class FakeChangesTests(ChangesContract, TestCase):
    async def make(self) -> tuple[Any, IChanges]:
        store = FakeDeviceStore()
        made: Any = FakeChanges(store)
        return store, made


class PostgresChangesTests(ChangesContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> tuple[Any, IChanges]:
        from twisted.internet import reactor

        self.database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(self.database.close)
        await migrate(self.database)
        made: Any = PostgresChanges(self.database)
        return PostgresDevices(self.database), made

    async def test_all_or_nothing(self) -> None:
        """What was not stored is not recorded either."""
        store, changes = await self.make()
        broken = replace(NODE, type="nonsense")  # type: ignore[arg-type]
        with self.assertRaises(psycopg2.Error):
            await store.save([broken], list(of_device(NODE.mac, None, NODE, "ann")))
        self.assertEqual(list(await changes.since(0, None, 10)), [])
        wrong = replace(next(of_device(NODE.mac, None, NODE, "ann")), kind="nonsense")
        with self.assertRaises(psycopg2.Error):
            await store.save([NODE], [wrong])
        found: list[Device] = []
        await store.load(found.extend)
        self.assertEqual(found, [])

    async def test_who_follows_misses_nothing(self) -> None:
        """No change becomes visible below one that was read, whichever transaction ends first."""
        _, changes = await self.make()
        read: list[Recorded] = []
        recorded: Deferred[None] = Deferred()
        end: Deferred[None] = Deferred()

        async def follow() -> None:
            read.extend(await changes.since(0, read[-1].number if read else None, 1000))

        async def add(transaction: Transaction, name: str) -> None:
            await transaction.execute_all(
                recording([Change("name", NODE.mac, "", None, name, "ann")])
            )

        async def slow(one: Transaction) -> None:
            await add(one, "slow")
            recorded.callback(None)
            await end

        waiting = [Deferred.fromCoroutine(self.database.transaction(slow))]
        await recorded
        waiting += [
            Deferred.fromCoroutine(self.database.transaction(partial(add, name=name)))
            for name in ("one", "two")
        ]
        # They wait for the slow one, or have ended before.
        while not all(one.called for one in waiting[1:]):
            if await self.database.query(_WAITING) == [(2,)]:
                break
        await follow()
        end.callback(None)
        for one in waiting:
            await one
            await follow()
        self.assertEqual({one.change.after for one in read}, {"slow", "one", "two"})
        self.assertEqual(sorted(one.moment for one in read), [one.moment for one in read])

    async def test_it_only_grows(self) -> None:
        """Nobody changes what happened."""
        store, changes = await self.make()
        await store.save([NODE], list(of_device(NODE.mac, None, NODE, "ann")))
        before = list(await changes.since(0, None, 100))
        for statement in ("DELETE FROM changes", "UPDATE changes SET who = 'bob'"):
            with self.assertRaises(psycopg2.IntegrityError):
                await self.database.execute(statement)
        self.assertEqual(list(await changes.since(0, None, 100)), before)

    async def test_links(self) -> None:
        """Cables: seen, led elsewhere, displaced; the same again, or silence, is no change."""
        store, changes = await self.make()
        await store.save([NODE, SWITCH, UNKNOWN])
        switches = PostgresSwitches(self.database)
        one = Link((NODE.mac, None), (SWITCH.mac, 3), LLDP, True, 10.0)
        acting.set("ann")  # she looks, she has moved nothing
        await switches.save({}, [], [one], [one])
        await switches.save({}, [one], [one._replace(seen=20.0)], [])
        moved = Link((NODE.mac, None), (SWITCH.mac, 4), LLDP, True, 30.0)
        await switches.save({}, [one], [moved], [moved])
        for confirmed in (False, True, False):  # the node is off, and on again
            await switches.save({}, [moved], [moved._replace(confirmed=confirmed)], [])
        other = Link((SWITCH.mac, 4), (UNKNOWN.mac, None), LLDP, True, 40.0)
        await switches.save({}, None, [other], [])
        acting.set(None)
        ends = (NODE.mac, SWITCH.mac)
        self.assertEqual([found.change for found in await changes.since(0, None, 100)], [
            Change("link", *ends, None, "? - 3"), Change("link", *ends, "? - 3", "? - 4"),
            Change("link", *ends, "? - 4", None),
            Change("link", SWITCH.mac, UNKNOWN.mac, None, "4 - ?"),
        ])

    async def test_images(self) -> None:
        """Names that come and go, and mean another image; not what is known, or still used."""
        store, changes = await self.make()
        images = PostgresImages(self.database)
        acting.set("ann")
        self.addCleanup(acting.set, None)
        mine = "ann/mine:latest"
        for image_id in ("1" * 64, "1" * 64, "2" * 64):
            await images.put(mine, image_id)
        await store.save([NODE])  # its image is not there yet
        self.assertEqual(await images.known(), {mine: "2" * 64, NODE.image: None})
        await images.put(str(NODE.image), "3" * 64)
        for name in (mine, mine, str(NODE.image)):
            await images.remove(name)
        found = [one.change for one in await changes.since(0, None, 100)]
        self.assertEqual([(one.item, one.before, one.after, one.who) for one in found], [
            (mine, None, "1" * 64, "ann"), (mine, "1" * 64, "2" * 64, "ann"),
            (NODE.image, None, "3" * 64, "ann"), (mine, "2" * 64, None, "ann"),
        ])

    async def test_images_of_before(self) -> None:
        """What was there before ids were kept did not come now."""
        _, changes = await self.make()
        images = PostgresImages(self.database)
        for name in ("ann/a:latest", "ann/b:latest"):
            await self.database.execute("INSERT INTO images VALUES (%s, '')", (name,))
        await images.put("ann/a:latest", "1" * 64)
        self.assertEqual(list(await changes.since(0, None, 100)), [])
        await images.put("ann/a:latest", "2" * 64)
        await images.remove("ann/b:latest")
        self.assertEqual(
            [(one.change.before, one.change.after) for one in await changes.since(0, None, 9)],
            [("1" * 64, "2" * 64), ("", None)],
        )
