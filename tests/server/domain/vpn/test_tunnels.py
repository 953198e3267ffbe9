"""Open tunnels, and the addresses of entry points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.fakes.vpn import FakeEntryPoints, FakeNames
from walt.common.errors import Denied, LimitExceeded
from walt.server.domain.events import Source
from walt.server.domain.vpn.history import MOST as MOST_NAMES
from walt.server.domain.vpn.history import EntryPointHistory
from walt.server.domain.vpn.tunnels import MOST, MOST_HELLOS, Tunnels


class FakeVpn:
    """Refuses what it is told to; `gate` holds its answers back."""

    def __init__(self) -> None:
        self.revoked: Source[str] = Source()
        self.refused: dict[str, str] = {}
        self.gate: Deferred[None] | None = None

    async def refusal(self, identity: str) -> str | None:
        reason = self.refused.get(identity)
        if self.gate is not None:
            gate = self.gate
            waiting = Deferred[None]()
            gate.addCallback(lambda _: waiting.callback(None))
            await waiting
        return reason


class TunnelsTests(TestCase):
    def setUp(self) -> None:
        self.vpn: Any = FakeVpn()
        self.said: list[str] = []
        self.ended: list[str] = []
        self.tunnels = Tunnels(self.vpn, self.said.append)

    def open(self, identity: str) -> str:
        device = self.tunnels.device_name()
        self.tunnels.opened(identity, device, lambda: self.ended.append(device))
        return device

    async def test_one_for_each_board(self) -> None:
        """A new tunnel ends the old one, whose late end does not count."""
        await self.tunnels.admit("a")
        first = self.open("a")
        second = self.open("a")
        self.assertEqual((first, second, self.ended), ("walt-vpn0", "walt-vpn1", ["walt-vpn0"]))
        self.tunnels.closed("a", first)
        self.assertEqual(len(self.tunnels), 1)
        self.assertEqual([self.tunnels.owner(one) for one in (first, second)], [None, "a"])
        self.assertEqual(self.open("b"), "walt-vpn2")
        self.tunnels.closed("a", second)
        self.tunnels.closed("a", second)
        self.assertEqual(len(self.tunnels), 1)

    async def test_revoked(self) -> None:
        """It ends at once; one that was being opened is not opened."""
        device = self.open("a")
        self.vpn.revoked.tell("a")
        self.assertEqual((self.ended, len(self.tunnels)), ([device], 0))
        self.vpn.gate = gate = Deferred[None]()
        entering = Deferred.fromCoroutine(self.tunnels.admit("b"))
        self.vpn.revoked.tell("b")
        gate.callback(None)
        with self.assertRaises(Denied):
            await entering
        self.vpn.refused["c"] = "the key c is revoked"
        with self.assertRaises(Denied):
            await self.tunnels.admit("c")

    async def test_too_many(self) -> None:
        """Tunnels that are open, and those that are being opened, are bounded."""
        self.vpn.gate = gate = Deferred[None]()
        waiting = [Deferred.fromCoroutine(self.tunnels.admit(f"{n}")) for n in range(MOST_HELLOS)]
        with self.assertRaises(LimitExceeded):
            await self.tunnels.admit("more")
        gate.callback(None)
        self.vpn.gate = None
        for one in waiting:
            await one
        for number in range(MOST):
            self.open(str(number))
        with self.assertRaises(LimitExceeded):
            await self.tunnels.admit("more")
        await self.tunnels.admit("7")  # instead of the one that it has
        self.assertEqual(len(self.tunnels), MOST)


class HistoryTests(TestCase):
    async def test_addresses(self) -> None:
        """Every name that was ever configured counts, with the addresses that it has now."""
        store, names = FakeEntryPoints(), FakeNames()
        applied: list[Sequence[str]] = []
        history = EntryPointHistory(store, names, applied.append)
        await history.look(None)
        self.assertEqual(applied, [()])
        names.names = {"a.org": ("10.0.0.1",), "b.org": ("10.0.0.3", "10.0.0.2")}
        await history.look("a.org")
        await history.look("a.org")
        self.assertEqual(applied[1:], [("10.0.0.1",)])
        history = EntryPointHistory(store, names, applied.append)  # another run, another name
        await history.look("b.org")
        self.assertEqual(applied[2:], [("10.0.0.1", "10.0.0.2", "10.0.0.3")])
        del names.names["a.org"]  # the name server does not answer: the last address counts
        names.names["b.org"] = ("10.0.0.9",)
        await history.look("b.org")
        self.assertEqual(applied[3:], [("10.0.0.1", "10.0.0.9")])

    async def test_too_many(self) -> None:
        """The last ones count."""
        store, names = FakeEntryPoints(), FakeNames()
        applied: list[Sequence[str]] = []
        for number in range(MOST_NAMES + 10):
            store.names[f"{number}.org"] = (f"10.0.1.{number}",)
        await EntryPointHistory(store, names, applied.append).look(None)
        self.assertEqual(len(applied[0]), MOST_NAMES)
        self.assertIn(f"10.0.1.{MOST_NAMES + 9}", applied[0])
