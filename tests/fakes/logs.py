"""Fakes of the ports of devices and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from tests.fakes.log_store import FakeLines
from walt.common.records import Block, block_of
from walt.server.domain.devices.changes import Change
from walt.server.domain.devices.interfaces import IDeviceStore
from walt.server.domain.devices.model import Device
from walt.server.domain.logs.interfaces import ILogCursor, ILogStore
from walt.server.domain.logs.model import (
    KnownStream,
    LogBlock,
    LogLine,
    LogQuery,
    StreamKey,
    StreamMode,
)


@implementer(IDeviceStore)
class FakeDeviceStore:
    """Devices in a dict, by MAC."""

    def __init__(self, *devices: Device) -> None:
        self.devices = {device.mac: device for device in devices}
        self.booted: dict[str, bool] = {}

    async def load(self) -> list[Device]:
        return list(self.devices.values())

    async def save(self, devices: Sequence[Device], changes: Sequence[Change] = ()) -> None:
        self.devices.update((device.mac, device) for device in devices)

    async def forget(
        self, macs: Sequence[str], keep_logs: Mapping[str, str], changes: Sequence[Change] = ()
    ) -> None:
        for mac in macs:
            self.devices.pop(mac, None)

    async def load_boot_states(self) -> Mapping[str, bool]:
        return dict(self.booted)

    async def save_boot_states(self, states: Mapping[str, bool]) -> None:
        self.booted.update(states)


@implementer(ILogCursor)
class FakeCursor:
    """Blocks of lines; each waits for `gate`, when there is one."""

    def __init__(self, lines: list[LogLine], block: int) -> None:
        self._lines = lines
        self._block = block
        self.gate: Deferred[None] | None = None
        self.closed = False

    async def next_block(self) -> Block:
        if self.gate is not None:
            await self.gate
        block, self._lines = self._lines[:self._block], self._lines[self._block:]
        return block_of(block)

    async def close(self) -> None:
        self.closed = True


@implementer(ILogStore)
class FakeLogStore(FakeLines):
    """Lines in a list, with the filters of queries."""

    def __init__(self, block: int = 100) -> None:
        super().__init__()
        self.block = block
        self.streams: dict[StreamKey, int] = {}
        self.modes: dict[StreamKey, StreamMode] = {}
        self.cursors: list[FakeCursor] = []
        self.gate: Deferred[None] | None = None
        self.error: Exception | None = None

    async def ensure_streams(
        self, streams: Mapping[StreamKey, StreamMode]
    ) -> Mapping[StreamKey, KnownStream]:
        for key, mode in streams.items():
            self.streams.setdefault(key, len(self.streams))
            self.modes.setdefault(key, mode)
        return {key: KnownStream(self.streams[key], self.last(key)) for key in streams}

    async def insert(self, batch: int, blocks: Sequence[tuple[int, LogBlock]]) -> None:
        names = {number: key for key, number in self.streams.items()}
        for number, block in blocks:
            self.add(names[number], block)

    async def former_issuers(self) -> list[str]:
        """Return the names of issuers that are no MAC."""
        return sorted({one.issuer for one in self.lines if ":" not in one.issuer})

    async def forget_former(self, name: str) -> None:
        """Delete lines at once."""
        self.rows = [row for row in self.rows if row[1].issuer != name]

    async def remove_forgotten(self, count: int) -> bool:
        """Nothing is left of forgotten devices."""
        return False

    async def make_partitions(self) -> None:
        """There are none."""

    async def drop_older_than(self, days: int) -> None:
        """Keep all."""

    async def count(self, query: LogQuery) -> int:
        return len(self.matching(query))

    async def open(
        self, query: LogQuery, settled: Callable[[], object] = lambda: None
    ) -> FakeCursor:
        settled()
        if self.error is not None:
            raise self.error
        cursor = FakeCursor(self.matching(query), self.block)
        cursor.gate = self.gate
        self.cursors.append(cursor)
        return cursor
