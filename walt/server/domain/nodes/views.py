"""Rows of `walt node show` (spec user-surface §1.7)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from walt.common.names import PLATFORM_USER, short_image_name
from walt.server.domain.devices.model import NETSETUP_NAT, Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.settings import settings_of
from walt.server.domain.nodes.interfaces import INodePower, IProvisioning
from walt.server.domain.nodes.progress import BootProgress, State, state_of
from walt.server.domain.nodes.reservations import Reservation, Reservations
from walt.server.domain.nodes.status import BootStatus
from walt.server.runtime.slicing import slices

AT_ONCE = 128  # rows made in one turn of the reactor
# What tables show of a node: the members of its row that `listed` gives, in this order.
COLUMNS = (
    "name", "ip", "type", "model", "image_name", "owner", "clonable_image_link", "netsetup",
    "booted", "powersave", "trouble", "reserved_by", "reserved_until",
)
WRITTEN_AT_ONCE = 2048  # rows that are made already, and joined in one turn
JOINED = 64  # rows of a piece, which is some tens of KiB


def node_type(device: Device) -> str:
    """Return physical, virtual or vpn: one rule for every table (Q-15)."""
    if device.virtual:
        return "virtual"
    return "vpn" if device.vpn_mac else "physical"


def netsetup_name(device: Device) -> str:
    """Return LAN or NAT."""
    return "NAT" if device.netsetup == NETSETUP_NAT else "LAN"


class Known(NamedTuple):
    """What a row tells beside the device."""

    booted: bool
    powersave: bool
    trouble: str | None
    reserved: Reservation | None
    stage: str | None
    failure: str | None


_QUIET = Known(False, False, None, None, None, None)  # of most nodes of a large platform


def owner_of(node: Device) -> str | None:
    """Return whose image a node boots, None for the default one."""
    return None if node.owner == PLATFORM_USER else node.owner


def cells_of(node: Device, state: Known) -> list[Any]:
    """Return what tables show of a node, in the order of COLUMNS."""
    image, owner, reserved = short_image_name(node.image or ""), node.owner, state.reserved
    return [
        node.name, node.ip, node_type(node), node.model, image, owner_of(node),
        f"walt:{owner}/{image}" if owner else None, netsetup_name(node), state.booted,
        state.powersave, state.trouble,
        reserved.user if reserved is not None else None,
        reserved.until if reserved is not None else None,
    ]


class Row(NamedTuple):
    """A node as it is shown."""

    device: Device
    state: Known
    order: tuple[str, str]  # owner and name
    owner: str  # empty: it boots no image
    cells: bytes  # what tables show, as a JSON list
    whole: bytes | None  # the whole row, as a JSON object; None: nobody asked yet


class NodeViews:
    """Nodes as programs get them: by `walt node show --json` and by the web API alike.

    Rows are kept as the JSON that they become, until their node, or its state, is another.
    `clock` gives callLater; `at_once` rows are made in one turn of the reactor, and
    `written_at_once` that are there are written.
    """

    def __init__(
        self, registry: DeviceRegistry, status: BootStatus, power: INodePower,
        provisioning: IProvisioning, progress: BootProgress, reservations: Reservations,
        emulated: Callable[[Device], bool], clock: IReactorTime, *, at_once: int = AT_ONCE,
        written_at_once: int = WRITTEN_AT_ONCE,
    ) -> None:
        self._at_once, self._written_at_once = at_once, written_at_once
        self._emulated = emulated
        self._reservations = reservations
        self._registry = registry
        self._status = status
        self._power = power
        self._provisioning = provisioning
        self._progress = progress
        self._clock = clock
        self._rows: dict[str, Row] = {}  # by MAC
        self._ordered: list[Row] | None = None  # the same by owner and name, None: others now
        self._stale: set[str] | None = None  # MACs of those to look at again; None: all
        self._marked: set[str] = set()  # MACs of rows with a state whose end nobody tells
        self._bare: set[str] = set()  # MACs of those whose rows are not whole
        registry.observe(lambda changes: self._changed(change.mac for change in changes))
        status.changed.observe(lambda mac, booted, cause: self._changed((mac,)))
        progress.changed.observe(lambda mac: self._changed((mac,)))

    def _changed(self, macs: Iterable[str]) -> None:
        if self._stale is not None:
            self._stale.update(macs)

    async def written(self, nodes: Iterable[Device]) -> tuple[int, bytes]:
        """Return the number of some nodes, and their rows, settings included.

        These are JSON in ASCII, with commas between rows. Many rows are made, and written, in
        several turns of the reactor.
        """
        macs = [node.mac for node in nodes]
        rows = await self._fresh(brief=False, only=frozenset(macs))
        found = [rows[mac] for mac in macs if mac in rows]
        return len(found), b"".join(await self._joined(found, b", ", brief=False))

    async def rows(self) -> Mapping[str, Row]:
        """Return the row of each node by MAC, with what tables show; as `written`.

        It is the same object as long as neither the node nor its state is another.
        """
        return dict(await self._fresh(brief=True))

    def is_booted(self, node: Device) -> bool:
        """Tell whether a node is booted."""
        return self._status.is_booted(node.mac)

    def state(self, node: Device) -> State:
        """Return what a node does."""
        mac = node.mac
        return state_of(
            self.is_booted(node), self._progress.stage(mac), self._progress.failure(mac)
        )

    def owner(self, node: Device) -> str | None:
        """Return whose image a node boots, None for the default one."""
        return owner_of(node)

    async def _fresh(
        self, *, brief: bool, only: frozenset[str] | None = None
    ) -> Mapping[str, Row]:
        """Return rows as nodes are now, by MAC; unless `brief`, whole ones; of `only` these."""
        troubles = self._provisioning.troubles
        marked = {*troubles, *self._power.all_off(), *self._reservations.macs()}
        if self._stale is None:
            self._stale = {node.mac for node in self._registry.nodes()}
        self._stale |= marked | self._marked
        looked_at = self._stale if brief else self._stale | self._bare
        macs = list(looked_at if only is None else looked_at & only)
        async for some in slices(self._clock, macs, self._at_once):
            troubles = self._provisioning.troubles
            for mac in some:
                self._renew(mac, troubles, brief=brief)
                self._stale.discard(mac)
        while not brief and (bare := self._bare if only is None else self._bare & only):
            # Who asked for less meanwhile made them.
            if len(bare) > self._at_once:
                await self._pause()
                troubles = self._provisioning.troubles
            for mac in tuple(islice(bare, self._at_once)):
                self._renew(mac, troubles, brief=False)
        return self._rows

    def _pause(self) -> Deferred[None]:
        return deferLater(self._clock, 0, lambda: None)

    def _renew(self, mac: str, troubles: Mapping[str, str], *, brief: bool) -> None:
        node = self._registry.get(mac)  # a MAC of a VPN counts there
        if node is None or node.mac != mac or not node.is_node:
            if self._rows.pop(mac, None) is not None:
                self._ordered = None
            self._bare.discard(mac)
            self._marked.discard(mac)
            return
        state = self._state(node, troubles)
        self._look(node, state, brief=brief)
        if (state.powersave, state.trouble, state.reserved) == (False, None, None):
            self._marked.discard(mac)
        else:
            self._marked.add(mac)

    def _look(self, node: Device, state: Known, *, brief: bool) -> None:
        row = self._rows.get(node.mac)
        if row is None or row.device is not node or row.state != state:
            cells = json.dumps(cells_of(node, state)).encode("ascii")
            owner = node.owner or ""
            row = self._rows[node.mac] = Row(node, state, (owner, node.name), owner, cells, None)
            self._ordered = None
            self._bare.add(node.mac)
        if not brief and row.whole is None:
            own = json.dumps(dict(sorted(zip(COLUMNS, cells_of(node, state), strict=True))))
            mac, rest = json.dumps(node.mac), json.dumps(self._rest(node, state), sort_keys=True)
            whole = f'{own[:-1]}, "mac": {mac}, {rest[1:]}'.encode("ascii")
            self._rows[node.mac] = row._replace(whole=whole)
            self._ordered = None
            self._bare.discard(node.mac)

    def _state(self, node: Device, troubles: Mapping[str, str]) -> Known:
        mac = node.mac
        state = Known(
            self._status.is_booted(mac), self._power.is_off(mac) == "powersave",
            troubles.get(mac), self._reservations.get(mac), self._progress.stage(mac),
            self._progress.failure(mac),
        )
        return _QUIET if state == _QUIET else state

    def _rest(self, node: Device, state: Known) -> dict[str, Any]:
        return {
            "virtual": node.virtual, "image": node.image,
            "boot_stage": state.stage, "failure": state.failure,
            "state": state_of(state.booted, state.stage, state.failure),
            "config": settings_of(node, self._registry.subnet, emulated=self._emulated(node)),
        }

    async def tables(self, user: str, *, show_all: bool) -> list[bytes]:
        """Return the caller's nodes, and with `show_all` those that are free and of others.

        It is JSON in ASCII, in pieces: an object of three lists, `own`, `free` and `others`,
        and `total`, the number of all nodes; sorted, a row a line. Many rows are made in several
        turns of the reactor.
        """
        return await self._tables(user, show_all=show_all, brief=False)

    async def listed(self, user: str, *, show_all: bool) -> list[bytes]:
        """Return what the tables of the walt command show of the same nodes.

        Each row is a list, in the order of the list of names `columns`: of thousands, objects
        take several times as long to read.
        """
        return await self._tables(user, show_all=show_all, brief=True)

    async def _tables(self, user: str, *, show_all: bool, brief: bool) -> list[bytes]:
        total, rows = len(await self._fresh(brief=brief)), self._in_order()
        if total > self._at_once:
            await self._pause()
        tables: dict[str, list[Row]] = {"free": [], "others": [], "own": []}
        for owner, found in groupby(rows, attrgetter("owner")):
            kind = "own" if owner == user else "free" if owner == PLATFORM_USER else "others"
            if show_all or kind == "own":
                tables[kind] += found
        written = [b"{\n"]
        if brief:
            written.append(b'  "columns": %s,\n' % json.dumps(COLUMNS).encode())
        for kind, members in tables.items():
            written.append(b'  "%s": [' % kind.encode())
            written += await self._listed(members, brief=brief)
            written.append(b"],\n")
        written.append(b'  "total": %d\n}' % total)
        return written

    def _in_order(self) -> list[Row]:
        """Return all rows by owner and name; they are kept so: what is in order is soon sorted."""
        if self._ordered is None:
            self._ordered = sorted(self._rows.values(), key=attrgetter("order"))
            self._rows = {row.device.mac: row for row in self._ordered}
        return self._ordered

    async def _listed(self, rows: Sequence[Row], *, brief: bool) -> list[bytes]:
        """Return what is between the brackets of a list of rows."""
        written = await self._joined(rows, b",\n    ", brief=brief)
        return [b"\n    ", *written, b"\n  "] if rows else []

    async def _joined(
        self, rows: Sequence[Row], between: bytes, *, brief: bool
    ) -> list[bytes]:
        """Return rows as JSON, some in each piece, with `between` between any two."""
        text = attrgetter("cells" if brief else "whole")
        pieces = list[bytes]()
        async for many in slices(self._clock, rows, self._written_at_once):
            for start in range(0, len(many), JOINED):
                texts = map(text, many[start:start + JOINED])
                pieces.append(between.join([b"", *texts] if pieces else texts))
        return pieces
