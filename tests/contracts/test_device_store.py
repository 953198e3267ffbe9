"""What every device store does: the fake and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.fakes.devices import FakeDeviceStore
from tests.system import cluster
from walt.server.adapters.postgres.boots import PostgresBoots
from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.migrate import migrate, scripts
from walt.server.domain.devices.model import Device
from walt.server.domain.nodes.boots import Boot

NODE = Device(
    "02:00:00:00:00:01", "node-1", "node", "192.168.1.5", conf={"netsetup": 1, "ram": "1G"},
    model="pc-x86-64", image="joe/mine:latest",
)
SWITCH = Device("02:00:00:00:00:02", "sw-1", "switch", model="netgear")
UNKNOWN = Device("02:00:00:00:00:03", "unknown-3", "unknown", "192.168.1.7")
VIRTUAL = replace(NODE, mac="52:54:00:00:00:04", name="vnode", ip="192.168.1.8", virtual=True)
_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


class DeviceStoreContract:
    """To be mixed with a case whose `make` returns a store."""

    make: Any
    assertEqual: Any

    async def loaded(self, store: Any) -> dict[str, Device]:
        """Return what the store has, by MAC."""
        found: list[Device] = []
        await store.load(found.extend)
        return {device.mac: device for device in found}

    async def test_what_is_saved_is_loaded(self) -> None:
        """Every field comes back."""
        store = await self.make()
        self.assertEqual(await self.loaded(store), {})
        devices = [NODE, SWITCH, UNKNOWN, VIRTUAL]
        await store.save(devices)
        self.assertEqual(await self.loaded(store), {one.mac: one for one in devices})

    async def test_replaces(self) -> None:
        """The last value is kept, an unknown device may become a node."""
        store = await self.make()
        await store.save([UNKNOWN, NODE])
        changed = [
            replace(NODE, image="ann/x:latest", conf={}),
            replace(UNKNOWN, type="node", model="rpi-b", image="waltplatform/rpi-b-default:latest"),
        ]
        await store.save(changed)
        self.assertEqual(await self.loaded(store), {one.mac: one for one in changed})

    async def test_swapped_names(self) -> None:
        """Two devices can exchange their names in one go."""
        store = await self.make()
        await store.save([NODE, VIRTUAL])
        swapped = [replace(NODE, name="vnode"), replace(VIRTUAL, name="node-1")]
        await store.save(swapped)
        self.assertEqual(await self.loaded(store), {one.mac: one for one in swapped})

    async def test_forget(self) -> None:
        """Devices go with their state; unknown MACs do not matter."""
        store = await self.make()
        await store.save([NODE, SWITCH])
        await store.save_boot_states({NODE.mac: True})
        await store.forget([NODE.mac, "02:00:00:00:00:99"], {})
        self.assertEqual(await self.loaded(store), {SWITCH.mac: SWITCH})
        self.assertEqual(await store.load_boot_states(), {})

    async def test_boot_states(self) -> None:
        """The last state is kept; devices forgotten meanwhile are left out."""
        store = await self.make()
        await store.save([NODE, VIRTUAL])
        await store.save_boot_states({NODE.mac: True, "02:00:00:00:00:99": True})
        await store.save_boot_states({NODE.mac: False, VIRTUAL.mac: True})
        self.assertEqual(
            await store.load_boot_states(), {NODE.mac: False, VIRTUAL.mac: True}
        )

    async def test_many(self) -> None:
        """Thousands at once."""
        store = await self.make()
        devices = [
            Device(f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", f"node-{n}", "node",
                   f"10.0.{n >> 8}.{n & 255}", model="pc", image="joe/mine:latest")
            for n in range(3000)
        ]
        await store.save(devices)
        taken: list[int] = []
        await store.load(lambda some: taken.append(len(some)))
        self.assertEqual(sum(taken), 3000)
        self.assertLess(max(taken), 3000)


class FakeDeviceStoreTests(DeviceStoreContract, TestCase):
    async def make(self) -> FakeDeviceStore:
        """Return an empty fake."""
        return FakeDeviceStore()


class PostgresDevicesTests(DeviceStoreContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> PostgresDevices:
        """Return a store over an empty database."""
        from twisted.internet import reactor

        self.database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(self.database.close)
        self.assertEqual(await migrate(self.database), [one for one, _ in scripts()])
        self.assertEqual(await migrate(self.database), [])
        return PostgresDevices(self.database)

    async def test_boot_states_of_one_being_forgotten(self) -> None:
        """A device that goes at that moment takes no state of the others with it."""
        store = await self.make()
        await store.save([NODE, VIRTUAL])
        deleted: Deferred[None] = Deferred()
        end: Deferred[None] = Deferred()

        async def forget(transaction: Transaction) -> None:
            await transaction.execute("DELETE FROM devices WHERE mac = %s", (NODE.mac,))
            deleted.callback(None)
            await end

        forgetting = Deferred.fromCoroutine(self.database.transaction(forget))
        await deleted
        saving = Deferred.fromCoroutine(
            store.save_boot_states({NODE.mac: True, VIRTUAL.mac: True})
        )
        while await self.database.query(_WAITING) != [(1,)]:
            self.assertFalse(saving.called)
        end.callback(None)
        await forgetting
        await saving
        self.assertEqual(await store.load_boot_states(), {VIRTUAL.mac: True})

    async def test_states_and_devices_at_once(self) -> None:
        """Whatever their order, who writes many devices and their states waits for no circle."""
        store, boots = await self.make(), PostgresBoots(self.database)
        third = replace(NODE, mac="52:54:00:00:00:05", name="third", ip="192.168.1.9")
        forwards = [NODE, VIRTUAL, third]
        await store.save(forwards)
        for many, states in ((forwards, True), (forwards[::-1], True), (forwards, False)):
            held: Deferred[None] = Deferred()
            end: Deferred[None] = Deferred()

            async def hold(
                transaction: Transaction, held: Deferred[None] = held, end: Deferred[None] = end
            ) -> None:
                await transaction.execute(
                    "SELECT FROM devices WHERE mac = %s FOR UPDATE", (VIRTUAL.mac,)
                )
                held.callback(None)
                await end

            holding = Deferred.fromCoroutine(self.database.transaction(hold))
            await held
            back = [one.mac for one in reversed(many)]
            first = Deferred.fromCoroutine(
                store.save_boot_states(dict.fromkeys(back, True)) if states
                else boots.save_boots([Boot(mac, 5.0, "n", None, None, None) for mac in back])
            )
            while await self.database.query(_WAITING) != [(1,)]:
                self.assertFalse(first.called)
            second = Deferred.fromCoroutine(store.save(many))
            while await self.database.query(_WAITING) != [(2,)]:
                self.assertFalse(second.called)
            end.callback(None)
            await gatherResults([holding, first, second])

    async def test_hostile_texts(self) -> None:
        """Texts are values, never SQL."""
        store = await self.make()
        hostile = replace(UNKNOWN, name="x'); DROP TABLE devices; --", conf={"a": "%s\\'\""})
        await store.save([hostile])
        self.assertEqual(await self.loaded(store), {hostile.mac: hostile})

    async def test_logs_go_with_their_device(self) -> None:
        """Streams of a forgotten device are deleted; its lines are seen no more, and noted."""
        store = await self.make()
        await store.save([NODE])
        await self.database.execute(
            "INSERT INTO logstreams (issuer_mac, name) VALUES (%s, 'exp')", (NODE.mac,)
        )
        await self.database.execute("INSERT INTO logs VALUES (1, now(), 'line', now(), 1)")
        await store.forget([NODE.mac], {})
        self.assertEqual(
            await self.database.query("SELECT stream_id FROM logremovals"), [(1,)]
        )
        self.assertEqual(await self.database.query("SELECT count(*) FROM logstreams"), [(0,)])
