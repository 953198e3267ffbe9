"""Reservations of runs, and what is done when they are lost."""

from __future__ import annotations

import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.client.local_shells import LocalShells
from tests.patience import patient
from walt.client.errors import Failure, Refused
from walt.client.experiment.lease import Lease, LeasedShells, LeaseLost
from walt.client.scripting import reserving
from walt.client.scripting.reserving import Reservation
from walt.client.scripting.running import Result


class LeaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.taken = False
        self.forgotten = True
        self.patch(reserving, "LINK", self)
        self.patch(reserving, "find", lambda names: names)
        self.patch(reserving, "NodeSet", lambda names: {names: None})

    def json(self, command: str, *words: object, **named: Any) -> list[str]:
        """Reserve."""
        if self.taken:
            raise Refused("n1 is reserved by bob", "CONFLICT")
        return ["n1"]

    def call(self, command: str, **named: Any) -> None:
        """Tell that a program lives, or that it needs its nodes no more."""
        if command == "cs.nodes.keep_reserved" and self.forgotten:
            raise Refused("these nodes are not reserved any more", "NOT_FOUND")

    def test_taken_by_another(self) -> None:
        """It is known when the server is asked; nothing reaches the nodes from then on."""
        reservation = Reservation("*", 1, "n1", 1000.0, 0)
        self.addCleanup(reservation.release)
        lease = Lease()
        lease.ask()  # without a reservation, nobody can have lost it
        lease.begin(reservation)
        ran: list[str] = []

        def run(node: str, command: str, limit: float) -> Result:
            ran.append(command)
            return Result(0, "", "")

        shells = LeasedShells(LocalShells(run), lease)
        lease.ask()
        shells.run("n1", "one", 1.0)
        self.taken = True
        self.assertIn("reserved by bob", str(self.assertRaises(LeaseLost, lease.ask)))
        self.assertRaises(LeaseLost, shells.run, "n1", "two", 1.0)
        self.assertRaises(LeaseLost, shells.fetch, "n1", "/etc/hostname", ran.append, 1.0)
        self.assertEqual(ran, ["one"])
        self.assertFalse(issubclass(LeaseLost, Failure))  # which are tried again
        self.taken = False
        lease.ask()
        shells.run("n1", "three", 1.0)
        self.assertEqual(ran, ["one", "three"])

    def test_whose_time_is_over(self) -> None:
        """Nodes are not reserved for longer than was asked for."""
        self.forgotten = False
        reservation = Reservation("*", 1, "n1", 0.05, 0, every=0.01)
        self.addCleanup(reservation.release)
        until = time.monotonic() + patient(20)
        while not reservation.lost and time.monotonic() < until:
            time.sleep(0.01)
        self.assertEqual(reservation.lost, "their time is over")
        self.forgotten = True
        reservation.ask()
        self.assertEqual(reservation.lost, "their time is over")
