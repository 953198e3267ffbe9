"""The kernel's NFS server is looked after: what is asked, told and started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import CommandFailed
from walt.server.adapters.nfs.kernel_server import EVERY, KernelServer
from walt.server.adapters.nfs.probe import NULL_CALL
from walt.server.runtime.process import ProcessResult

UNIT = "nfs-here.service"
GOOD = b"\x80\x00\x00\x18" + b"WalT" + b"\x00\x00\x00\x01" + bytes(16)


class Runner:
    """Stands for ProcessRunner."""

    def __init__(self) -> None:
        self.ran: list[Sequence[str]] = []
        self.refuses = False

    async def run(self, argv: Sequence[str], **more: Any) -> ProcessResult:
        self.ran.append(argv)
        if self.refuses:
            raise CommandFailed("systemctl failed: no such unit")
        return ProcessResult(tuple(argv), 0, b"", b"")


class KernelServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor, self.runner = MemoryReactorClock(), Runner()
        systemd = Path(self.mktemp())
        systemd.mkdir()
        self.server = KernelServer(
            self.reactor, self.runner,  # type: ignore[arg-type]
            unit=UNIT, address="10.0.0.1", systemd=systemd,
        )
        self.server.startService()
        self.addCleanup(self.server.stopService)
        self.asked = 0

    def answer(self, *, good: bool) -> None:
        """Answer the question under way, and let the time for the next one come."""
        host, port, factory, _, _ = self.reactor.tcpClients[self.asked]
        self.assertEqual((host, port), ("10.0.0.1", 2049))
        self.asked += 1
        if not good:
            factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        else:
            protocol = factory.buildProtocol(None)
            transport = StringTransport()
            protocol.makeConnection(transport)
            self.assertEqual(transport.value(), NULL_CALL)
            protocol.dataReceived(GOOD)

    def test_it_runs(self) -> None:
        """It is asked at intervals, and nothing is started."""
        for _ in range(3):
            self.answer(good=True)
            self.assertEqual(self.server.health.state, "running")
            self.reactor.advance(EVERY)
        self.assertEqual(self.runner.ran, [])

    def test_it_is_down(self) -> None:
        """Its unit, as server.conf names it, is started at once at the start; told in health."""
        self.answer(good=False)
        health = self.server.health
        self.assertEqual((health.state, health.running), ("not answering", False))
        self.assertIn("nothing listens", str(health.trouble))
        self.assertEqual(self.runner.ran, [["systemctl", "restart", "--", UNIT]])
        self.reactor.advance(EVERY)
        self.answer(good=True)
        health = self.server.health
        self.assertEqual((health.state, health.restarts), ("running", 1))

    def test_it_goes_down(self) -> None:
        """One answer that is missing is nothing; what cannot be started is told."""
        self.runner.refuses = True
        self.answer(good=True)
        for expected in (0, 1, 1, 2):
            self.reactor.advance(EVERY)
            self.answer(good=False)
            self.assertEqual(len(self.runner.ran), expected)
        self.assertIn("no such unit", str(self.server.health.trouble))

    def test_asked_for_readiness(self) -> None:
        """Who waits for it asks now, and starts nothing."""
        self.answer(good=True)
        waiting: Deferred[bool] = self.server.answered()
        self.answer(good=False)
        self.assertFalse(self.successResultOf(waiting))
        self.assertEqual(self.runner.ran, [])
