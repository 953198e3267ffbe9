"""Devices in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from zope.interface import implementer

from walt.server.adapters.postgres.changes import recording
from walt.server.adapters.postgres.connection import Database, Row, Statement, Transaction
from walt.server.domain.devices.changes import Change
from walt.server.domain.devices.interfaces import IDeviceStore
from walt.server.domain.devices.model import Device

_LOAD = """
SELECT d.mac, d.name, d.type, d.ip, d.virtual, d.conf::text, coalesce(n.model, s.model), n.image,
       v.vpnmac
FROM devices d
LEFT JOIN nodes n USING (mac) LEFT JOIN switches s USING (mac) LEFT JOIN vpnnodes v USING (mac)
WHERE d.mac > %s ORDER BY d.mac LIMIT %s
"""
AT_ONCE = 2000  # devices made in one turn of the reactor
WRITTEN_AT_ONCE = 500  # of one statement

_SAVE_DEVICES = """
INSERT INTO devices (mac, ip, name, type, virtual, conf)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::boolean[], %s::jsonb[])
ON CONFLICT (mac) DO UPDATE SET ip = excluded.ip, name = excluded.name, type = excluded.type,
    virtual = excluded.virtual, conf = excluded.conf
"""

# A swap of names would break the unique index row by row: free them first.
_FREE_NAMES = """
UPDATE devices d SET name = d.mac FROM unnest(%s::text[], %s::text[]) AS new (name, mac)
WHERE d.name = new.name AND d.mac <> new.mac
"""

_SAVE_NODES = """
INSERT INTO nodes (mac, image, model) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[])
ON CONFLICT (mac) DO UPDATE SET image = excluded.image, model = excluded.model
"""

_SAVE_IMAGES = "INSERT INTO images SELECT * FROM unnest(%s::text[]) ON CONFLICT DO NOTHING"

_SAVE_SWITCHES = """
INSERT INTO switches (mac, model) SELECT * FROM unnest(%s::text[], %s::text[])
ON CONFLICT (mac) DO UPDATE SET model = excluded.model
"""

_LABEL_KEYS = """
UPDATE vpnauth a SET device_label = 'forgotten device "' || d.name || '" mac=' || d.mac
FROM vpnnodes v JOIN devices d USING (mac)
WHERE a.vpnmac = v.vpnmac AND d.mac = ANY(%s)
"""

_KEEP_LOGS = """
UPDATE logstreams SET issuer_mac = NULL, former = kept.name
FROM unnest(%s::text[], %s::text[]) AS kept (mac, name) WHERE issuer_mac = kept.mac
"""

# Their lines are not seen any more once the streams are gone; they are deleted later.
_FORGET_LOGS = """
INSERT INTO logremovals (stream_id) SELECT id FROM logstreams WHERE issuer_mac = ANY(%s)
"""

# One that is being forgotten is waited for: it would take the states of others with it.
_SAVE_STATES = """
INSERT INTO bootstates (mac, booted)
SELECT * FROM unnest(%s::text[], %s::boolean[]) AS new (mac, booted)
WHERE EXISTS (SELECT 1 FROM devices d WHERE d.mac = new.mac FOR KEY SHARE)
ON CONFLICT (mac) DO UPDATE SET booted = excluded.booted, since = now()
"""

_FORGET = "DELETE FROM devices WHERE mac = ANY(%s)"


@implementer(IDeviceStore)
class PostgresDevices:
    """The tables devices, nodes, switches and bootstates; `at_once` devices are made in a turn."""

    def __init__(self, database: Database, at_once: int = AT_ONCE) -> None:
        self._database = database
        self._at_once = at_once

    async def load(self, take: Callable[[Sequence[Device]], object]) -> None:
        """Give every device to `take`; see IDeviceStore."""

        async def work(transaction: Transaction) -> None:
            made, last = _Made(), ""
            while rows := await transaction.query(_LOAD, (last, self._at_once)):
                take([*map(made.device, rows)])
                last = rows[-1][0]

        await self._database.transaction(work)

    async def save(self, devices: Sequence[Device], changes: Iterable[Change] = ()) -> None:
        """Insert or replace these devices in one transaction; see IDeviceStore."""

        await self._database.transaction(lambda transaction: transaction.execute_all(
            chain(_saving(devices), recording(changes))
        ))

    async def forget(
        self, macs: Sequence[str], keep_logs: Mapping[str, str], changes: Iterable[Change] = ()
    ) -> None:
        """Delete devices and, by their keys, everything that refers to them."""

        wanted = (list(macs),)
        statements: list[Statement] = [
            (_LABEL_KEYS, wanted), (_KEEP_LOGS, (list(keep_logs), list(keep_logs.values()))),
            (_FORGET_LOGS, wanted), (_FORGET, wanted),
        ]
        await self._database.transaction(lambda transaction: transaction.execute_all(
            chain(statements, recording(changes))
        ))

    async def load_boot_states(self) -> Mapping[str, bool]:
        """Return, by MAC, whether the node was booted."""
        rows = await self._database.query("SELECT mac, booted FROM bootstates")
        return {str(mac): bool(booted) for mac, booted in rows}

    async def save_boot_states(self, states: Mapping[str, bool]) -> None:
        """Record which nodes are booted; nodes forgotten meanwhile are left out."""
        macs = sorted(states)
        await self._database.execute(_SAVE_STATES, (macs, [states[mac] for mac in macs]))


def _saving(devices: Sequence[Device]) -> Iterator[Statement]:
    # Who locks rows of many devices takes them in this order, or would wait in a circle.
    devices = sorted(devices, key=attrgetter("mac"))
    some = [
        devices[start:start + WRITTEN_AT_ONCE]
        for start in range(0, len(devices), WRITTEN_AT_ONCE)
    ]
    for part in some:
        yield _FREE_NAMES, ([device.name for device in part], [device.mac for device in part])
    for part in some:
        yield from _saving_some(part)


def _saving_some(devices: Sequence[Device]) -> Iterator[Statement]:
    yield _SAVE_DEVICES, (
        [device.mac for device in devices], [device.ip for device in devices],
        [device.name for device in devices],
        [device.type for device in devices], [device.virtual for device in devices],
        [json.dumps(dict(device.conf)) for device in devices],
    )
    nodes = [device for device in devices if device.type == "node"]
    if nodes:
        images = [node.image for node in nodes]
        yield _SAVE_IMAGES, (sorted({str(image) for image in images}),)
        yield _SAVE_NODES, ([node.mac for node in nodes], images, [node.model for node in nodes])
    switches = [device for device in devices if device.type == "switch"]
    if switches:
        yield _SAVE_SWITCHES, (
            [switch.mac for switch in switches], [switch.model for switch in switches],
        )


class _Made:
    """Makes devices of rows of _LOAD; thousands have the same settings, images, models."""

    def __init__(self) -> None:
        self._same: dict[Any, Any] = {}
        self._settings: dict[str, Mapping[str, Any]] = {}

    def device(self, row: Row) -> Device:
        """Return the device of a row."""
        mac, name, kind, ip, virtual, conf, model, image, vpn_mac = row
        if conf not in self._settings:
            self._settings[conf] = MappingProxyType(json.loads(conf))
        return Device(
            mac, name, self._shared(kind), ip, virtual, self._settings[conf],
            self._shared(model), self._shared(image), vpn_mac,
        )

    def _shared(self, value: Any) -> Any:
        return self._same.setdefault(value, value)
