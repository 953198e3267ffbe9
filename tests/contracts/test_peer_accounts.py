"""What every IPeerAccounts does: the fake and the kernel's."""

from __future__ import annotations

import os
import socket
from abc import abstractmethod

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.access import FakePeerAccounts
from walt.server.adapters.web.accounts import LoopbackAccounts
from walt.server.domain.access.interfaces import IPeerAccounts

NOBODY = 65534


class PeerAccountContract(Contract):
    """`make` returns an IPeerAccounts, `connect` both ports of a connection of an account."""

    @abstractmethod
    def make(self) -> IPeerAccounts:
        """Given by each implementation; the class tells what."""

    @abstractmethod
    def connect(self, uid: int) -> tuple[int, int]:
        """Make a connection; return its port and that of the server."""

    @abstractmethod
    def close(self) -> None:
        """Close the end of the account, which sent something, of the last connection."""

    def test_whose(self) -> None:
        """The account whose end is open; nobody else's, and not that of a port without any."""
        accounts = self.make()
        verifyObject(IPeerAccounts, accounts)
        uids = (os.getuid(), NOBODY) if os.getuid() == 0 else (os.getuid(),)
        made = [(uid, *self.connect(uid)) for uid in uids]
        for uid, port, own in made:
            self.assertEqual(accounts.uid_of(port, own), uid)
            self.assertIsNone(accounts.uid_of(port, 1))
            self.assertIsNone(accounts.uid_of(1, own))
        self.close()
        self.assertIsNone(accounts.uid_of(*made[-1][1:]))


class FakeTests(PeerAccountContract, SynchronousTestCase):
    def make(self) -> IPeerAccounts:
        self.fake = FakePeerAccounts()
        made: IPeerAccounts = self.fake
        return made

    def connect(self, uid: int) -> tuple[int, int]:
        self.last = 40000 + len(self.fake.open), 12381
        self.fake.open[self.last] = uid
        return self.last

    def close(self) -> None:
        del self.fake.open[self.last]


class KernelTests(PeerAccountContract, SynchronousTestCase):
    def make(self) -> IPeerAccounts:
        made: IPeerAccounts = LoopbackAccounts()
        return made

    def connect(self, uid: int) -> tuple[int, int]:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        before = os.geteuid()
        if uid != before:
            os.seteuid(uid)
        try:
            self.one = socket.create_connection(listening.getsockname())
        finally:
            if uid != before:
                os.seteuid(before)
        self.addCleanup(self.one.close)
        accepted, _ = listening.accept()
        self.addCleanup(accepted.close)
        return self.one.getsockname()[1], listening.getsockname()[1]

    def close(self) -> None:
        self.one.sendall(b"one who does not wait")
        self.one.close()
