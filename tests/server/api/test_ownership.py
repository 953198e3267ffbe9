"""Whose nodes are: asked by every command that may disturb somebody."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, FakeRequester, node, stored
from walt.server.api.nodes import ReservationsApi
from walt.server.domain.nodes.reservations import Reservations


class OwnershipTests(SynchronousTestCase):
    def now(self, coroutine: Any) -> Any:
        """Return what a coroutine gives at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_thousands(self) -> None:
        """Some are looked at in each turn; reservations of others are told."""
        fake = FakePlatform(stored(DEFAULT))
        self.now(fake.start())
        self.now(fake.registry.put(*(node(number) for number in range(2, 7))))
        reservations = Reservations(fake.clock, at_once=2)
        reservations.take(
            [fake.registry.named("node-6")], "*", 1, 60.0, user="ann", holder="a script"
        )
        looks: list[str] = []
        look = reservations.get
        self.patch(reservations, "get", lambda mac: (looks.append(mac), look(mac))[1])
        locator = ReservationsApi(
            FakeRequester(), fake.registry, fake.nodes, reservations, fake.images
        )
        work = Deferred.fromCoroutine(locator.ownership("all-nodes"))
        self.assertEqual(len(looks), 2)
        fake.clock.pump([0, 0])
        found = self.successResultOf(work)
        names = [f"node-{number}" for number in range(2, 7)]
        self.assertEqual((found["names"], found["free"]), (names, names))
        (reserved,) = found["reservations"]
        self.assertEqual((reserved["node"], reserved["user"]), ("node-6", "ann"))
